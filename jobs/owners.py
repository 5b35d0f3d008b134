"""Who owns a night: a name for this process, and whether another one still runs."""

import os
import socket
import time

import psutil


def me() -> str:
    """Return this process's name as an owner: host, process id, and when it started, since ids are used again."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}:{time.monotonic_ns()}"


def is_gone(owner: str | None) -> bool:
    """Return whether an owner is a process of this machine that no longer runs; False where that can't be known."""
    if owner is None:
        return False
    host, pid, started, _ = owner.rsplit(":", 3)
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" != started
    except psutil.Error:
        return True
