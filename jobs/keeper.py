"""Processes that are kept running: started again when they end, stopped all together, and gone when their keeper is."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from jobs.child import die_with_parent

STOP_SECONDS, LOOK_SECONDS = 15.0, 0.2
_RESTART_SECONDS = 1.0
_LOG_BYTES = 50 << 20
"""A longer log becomes `<name>.log.1`, in place of the one before."""


class Supervisor:
    """Keeps processes running; each writes to `<name>.log`. Those named in `last` are stopped after the others.

    They die with the thread that starts them, however it ends: `look` is for a thread that stays.
    """

    def __init__(
        self, commands: dict[str, list[str]], folder: Path, environment: dict[str, str] | None = None,
        last: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.commands, self.folder, self.environment, self.last = commands, folder, environment, set(last)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ended_at: dict[str, float] = {}
        self.restarts = 0
        self.stopping = threading.Event()

    def look(self) -> None:
        """Start whatever does not run, a second after it ended."""
        for name in self.commands:
            process = self.running.get(name)
            if process is not None and process.poll() is None:
                _turn_over(self.folder / f"{name}.log")
                continue
            if process is not None and name not in self.ended_at:
                self.ended_at[name] = time.monotonic()
                continue
            if time.monotonic() - self.ended_at.get(name, float("-inf")) < _RESTART_SECONDS:
                continue
            self.restarts += self.ended_at.pop(name, None) is not None
            self._start(name)

    def _start(self, name: str) -> None:
        log = self.folder / f"{name}.log"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                self.running[name] = subprocess.Popen(
                    self.commands[name], stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=self.environment,
                    start_new_session=True, preexec_fn=partial(die_with_parent, os.getpid()),
                )  # fmt: skip
        except OSError as error:  # the disk is full, or the program is being installed anew: it is tried again
            self.ended_at[name] = time.monotonic()
            with suppress(OSError), log.open("a") as file:
                file.write(f"{name} can't be started: {error}\n")

    def run(self) -> None:
        """Look until `stopping` is set, then stop everything."""
        try:
            while not self.stopping.wait(LOOK_SECONDS):
                self.look()
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop all: politely, then not; `last` last, since the others still talk to it."""
        _stop([p for name, p in self.running.items() if name not in self.last])
        _stop([p for name, p in self.running.items() if name in self.last])


def _turn_over(log: Path) -> None:
    """Keep a log short; whoever writes it goes on at its new end. What is written just now may be lost.

    Logs are never worth a process: one that was moved away is left alone, one that no copy finds room for is cut.
    """
    with suppress(OSError):
        if log.stat().st_size > _LOG_BYTES:
            with suppress(OSError):
                shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def _stop(processes: list["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        _signal(process, signal.SIGCONT)
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        _kill_group(process)


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
