"""A worker that hangs is worse than one that ends: it looks alive, and nobody starts it again.

A pool process that is killed at the wrong moment takes a lock with it that Celery's main process waits for, for ever:
the one around its count of finished tasks, of which billiard keeps half in either process. Found by `make chaos`, once
in some 400 killed processes. A thread looks where the main one stands; stuck in such a lock, or in reading what will
never be written to the end, the worker ends at once, and what supervises it starts another.

So it does where an error has ended Celery's main loop (a Redis that can't write, say), and its last wait for the pool
does not end: found by the soak. A night under way is waited for, however long it takes.
"""

import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from celery import bootsteps

STUCK, FAILURE = 75, 1
"""Exit codes: of a worker that hung (EX_TEMPFAIL), and of one that Celery stops after an error."""
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
            waited = look_seconds * looks
            _end(f"this worker waits for a lock of a killed process for {waited:.0f} s: it ends, to be started again")


class EndAfterError(bootsteps.StartStopStep):  # type: ignore[misc]
    """Lets a worker that an error has stopped wait for its night, but not for a pool that does nothing."""

    def close(self, parent: Any) -> None:
        """Look from now on, if it is an error that stops the worker."""
        if parent.exitcode == FAILURE:
            end_when_idle(_LOOK_SECONDS, _LOOKS)


def end_when_idle(look_seconds: float, looks: int) -> threading.Thread:
    """Start looking at the pool; where no process of it has a child `looks` times in a row, this process ends."""
    thread = threading.Thread(target=_end_when_idle, args=(look_seconds, looks), name="last wait", daemon=True)
    thread.start()
    return thread


def _end_when_idle(look_seconds: float, looks: int) -> None:
    pause, times = threading.Event(), 0
    while not pause.wait(look_seconds):
        times = 0 if _has_a_night() else times + 1
        if times >= looks:
            _end("an error has stopped this worker, and its pool does not end: it ends without it")


def _has_a_night() -> bool:
    me = psutil.Process()
    return len(me.children(recursive=True)) > len(me.children())


def _end(text: str) -> None:
    # Not by logging: its locks may be the main thread's.
    os.write(2, f'{{"level": "critical", "logger": "recsys_kd.jobs", "process": {os.getpid()}, '.encode())
    os.write(2, f'"message": "{text}"}}\n'.encode())
    os._exit(STUCK)
