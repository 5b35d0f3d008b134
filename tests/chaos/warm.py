"""For the soak: nights fork from a pool process that has loaded torch, so that they cost their own work alone.

A night of the soak's shop takes a second of work, and an interpreter that starts and loads torch takes four: it would
measure the loading. Everything else of a night is as ever: a process of its own that dies with its worker, its session,
its lock, its output, its limits. `python` finds `site(folder)` on its path and takes this in, in pool processes only.
"""

import logging
import os
import signal
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

_LOADED = ("jobs.child", "recsys_kd.cli.main", "recsys_kd.flow.night", "torch._dynamo")
_COLD = subprocess.Popen


def site(folder: Path) -> Path:
    """Write a folder for PYTHONPATH that takes this in where a process is one of a pool."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nif any('spawn_main' in a for a in sys.orig_argv):\n    from tests.chaos import warm\n"
        "    warm.take_over()\n"
    )
    return folder


def take_over() -> None:
    """Have `subprocess.Popen` fork where a night's process is started; a heavy worker's processes load at once.

    Loading in the middle of a stage would keep its worker from renewing its lease.
    """
    subprocess.Popen = _popen  # type: ignore[assignment,misc]
    if b"heavy" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes():
        _load()


def _popen(command: list[str], **options: Any) -> Any:
    if command[1:3] != ["-m", "jobs.child"]:
        return _COLD(command, **options)
    _load()
    return Forked(command, **options)


def _load() -> None:
    for name in _LOADED:
        import_module(name)


class Forked:
    """As much of `subprocess.Popen` as `jobs.supervise` needs."""

    def __init__(self, command: list[str], stdout: Any, stderr: Any, env: dict[str, str], **_: Any) -> None:
        self.args, self.returncode = command, None
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_night(command[3:], stdout.fileno(), stderr.fileno(), env))

    def poll(self) -> int | None:
        """Return the exit code, if it has ended."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for the end."""
        return self._reap(0)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _night(arguments: list[str], stdout: int, stderr: int, env: dict[str, str]) -> int:
    """Run `jobs.child` as a fresh process would, and return its exit code."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for mine, given in ((0, os.open(os.devnull, os.O_RDONLY)), (1, stdout), (2, stderr)):
        os.dup2(given, mine)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["jobs.child", *arguments]
    try:
        import_module("jobs.child").main()
        code: Any = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)
