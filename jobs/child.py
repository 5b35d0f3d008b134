"""The heavy stage's own process: it dies with its worker, is the first to go when memory ends, and is alone on a night.

`python -m jobs.child PARENT FOLDER ARGUMENTS...` runs `recsys-kd ARGUMENTS...`. A process that still holds FOLDER's
lock belongs to a worker that was taken over (somebody else claimed the night since): it is killed.
"""

import ctypes
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
"""Opened here, not where it is called: that may be between fork and exec, where little is safe."""
_LOCK_SECONDS = 10.0
_CANT_LOCK = 3


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; exit at once if it already has."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def first_to_go() -> None:
    """Tell the kernel to kill this process, not the worker, when memory ends."""
    path = Path("/proc/self/oom_score_adj")
    if path.exists():
        path.write_text("1000")


def take(folder: Path) -> int:
    """Return the open lock of a night's folder, killing whoever was taken over and holds it still."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                print(f"{folder}: another machine's worker holds it; it is tried again later", file=sys.stderr)
                sys.exit(_CANT_LOCK)
            _kill_holder(lock)
            time.sleep(0.05)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return lock


def _kill_holder(lock: int) -> None:
    text = os.pread(lock, 32, 0).decode()
    if text and _is_child(int(text)):
        os.kill(int(text), signal.SIGKILL)


def _is_child(pid: int) -> bool:
    """Return whether a process is one of these: its number may be somebody else's by now."""
    try:
        return b"jobs.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def main() -> None:
    """See the module's text."""
    parent, folder, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    first_to_go()
    lock = take(Path(folder))
    from recsys_kd.cli import main as run

    sys.argv = ["recsys-kd", *arguments]
    try:
        run()
    finally:
        os.close(lock)


if __name__ == "__main__":
    main()
