"""A worker that hangs is worse than one that ends: it looks alive, and nobody starts it again.

A pool process that is killed at the wrong moment takes a lock with it that Celery's main process waits for, for ever:
the one around its count of finished tasks, of which billiard keeps half in either process. Found by `make chaos`, once
in some 400 killed processes. A thread looks where the main one stands; stuck in such a lock, or in reading what will
never be written to the end, the worker ends at once, and what supervises it starts another.
"""

import os
import sys
import threading
from pathlib import Path
from types import FrameType

STUCK = 75
"""Exit code: EX_TEMPFAIL."""
_LOOK_SECONDS, _LOOKS = 5.0, 6
_PLACES = {"synchronize.py", "connection.py"}
"""Of billiard: locks that are waited for by `with`, as its pool does, and pipes. Nothing in them takes a main process
longer than a moment. (A bare `acquire` is a function in C, and leaves no frame.)"""


def is_waiting(frame: FrameType) -> bool:
    """Return whether a thread stands in one of billiard's locks or pipes."""
    path = Path(frame.f_code.co_filename)
    return path.name in _PLACES and path.parent.name == "billiard"


def watch(look_seconds: float = _LOOK_SECONDS, looks: int = _LOOKS) -> threading.Thread:
    """Start looking at the main thread; where it waits at one place `looks` times in a row, this process ends.

    Looks are counted, not seconds: while a process is stopped, nobody looks.
    """
    thread = threading.Thread(target=_watch, args=(look_seconds, looks), name="watchdog", daemon=True)
    thread.start()
    return thread


def _watch(look_seconds: float, looks: int) -> None:
    main, pause = threading.main_thread().ident, threading.Event()
    at: tuple[FrameType, int] | None = None
    times = 0
    while not pause.wait(look_seconds):
        frame = sys._current_frames().get(main or 0)
        now = (frame, frame.f_lasti) if frame is not None and is_waiting(frame) else None
        times = times + 1 if now is not None and now == at else 0
        at = now
        if times >= looks:
            _end(look_seconds * looks)


def _end(seconds: float) -> None:
    text = f"this worker waits for a lock of a killed process for {seconds:.0f} s: it ends, to be started again"
    # Not by logging: its locks may be the main thread's.
    os.write(2, f'{{"level": "critical", "logger": "recsys_kd.jobs", "process": {os.getpid()}, '.encode())
    os.write(2, f'"message": "{text}"}}\n'.encode())
    os._exit(STUCK)
