"""The whole application on one machine: starts its processes, starts again whatever ends, stops them all together.

For trying it out, and for tests; a service manager or deploy/compose.yaml does the same in production. Celery's
workers do end when Redis is lost at the wrong moment, so something has to start them again.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import psutil

from jobs.config import JobsConfig
from recsys_kd.errors import OutsideError

PID = "up.pid"
_RESTART_SECONDS, _STOP_SECONDS, _LOOK_SECONDS = 1.0, 15.0, 0.2
_LOG_BYTES = 50 << 20
"""A longer log becomes `<name>.log.1`, in place of the one before."""


class AlreadyUp(OutsideError):
    """Another `up` runs in the folder."""


def commands(config: JobsConfig, folder: Path, beat: bool) -> dict[str, list[str]]:
    """Return what runs: name -> command."""
    celery = [sys.executable, "-m", "celery", "-A", "jobs.app"]
    worker = [*celery, "worker", "--without-gossip", "--without-mingle"]
    found = {
        "heavy": [*worker, "-Q", "heavy", "-c", "1", "-n", f"heavy-{os.getpid()}@%h"],
        "light": [*worker, "-Q", "light", "-c", "1", "-n", f"light-{os.getpid()}@%h"],
        "reconcile": [sys.executable, "-m", "jobs.reconciler"],
    }
    if find_spec("flower") is not None:
        found["flower"] = [*celery, "flower", "--address=127.0.0.1", f"--port={config.flower_port}"]
    if find_spec("recsys_kd_kserve") is not None:
        found["server"] = [sys.executable, "-m", "jobs.server", str(folder)]
    if beat:
        found["beat"] = [*celery, "beat", "-s", str(folder / "beat-schedule"), "--pidfile="]
    redis = urlsplit(config.broker)
    if redis.hostname in ("127.0.0.1", "localhost") and not _listens(redis.port or 6379):
        server = shutil.which("redis-server")
        if server is None:
            raise OutsideError("redis-server is not installed; install it from the system's packages, or start one")
        options = ["--bind", "127.0.0.1", "--appendonly", "yes", "--maxmemory-policy", "noeviction", "--save", ""]
        (folder / "redis").mkdir(parents=True, exist_ok=True)
        port = str(redis.port or 6379)
        found = {"redis": [server, "--port", port, "--dir", str(folder / "redis"), *options], **found}
    return found


def _listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class StillUp(OutsideError):
    """What `up` started does not end."""


class Supervisor:
    """Keeps processes running; each writes to `<name>.log`."""

    def __init__(self, commands: dict[str, list[str]], folder: Path, environment: dict[str, str] | None = None) -> None:
        self.commands, self.folder, self.environment = commands, folder, environment
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
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            try:
                self.running[name] = subprocess.Popen(
                    self.commands[name], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:  # being installed anew, say: it is tried again
                log.write(f"{name} can't be started: {error}\n".encode())
                self.ended_at[name] = time.monotonic()

    def run(self) -> None:
        """Look until `stopping` is set, then stop everything."""
        try:
            while not self.stopping.wait(_LOOK_SECONDS):
                self.look()
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop all: politely, then not; Redis last, since the others still talk to it."""
        redis = [p for name, p in self.running.items() if name == "redis"]
        _stop([p for p in self.running.values() if p not in redis])
        _stop(redis)


def _turn_over(log: Path) -> None:
    """Keep a log short; whoever writes it goes on at its new end. What is written just now may be lost."""
    if log.stat().st_size > _LOG_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def _stop(processes: list["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        _signal(process, signal.SIGCONT)
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
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


def run(config: JobsConfig, folder: Path, beat: bool) -> None:
    """Run the application until it is told to stop. Raises: AlreadyUp."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if (pid := running(folder)) is not None:
        raise AlreadyUp(f"{folder}: process {pid} runs it already; `recsys-kd jobs down {folder}` stops it")
    supervisor = Supervisor(commands(config, folder, beat), folder)

    def stop(number: int, frame: FrameType | None) -> None:
        supervisor.stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    (folder / PID).write_text(str(os.getpid()))
    print(f"up: {', '.join(supervisor.commands)}; logs in {folder}", file=sys.stderr, flush=True)
    try:
        supervisor.run()
    finally:
        (folder / PID).unlink(missing_ok=True)


def running(folder: Path) -> int | None:
    """Return the process that runs the application in a folder, if it does."""
    try:
        pid = int((folder / PID).read_text())
        return pid if "up" in psutil.Process(pid).cmdline() else None
    except (OSError, ValueError, psutil.Error):
        return None


def stop(folder: Path) -> bool:
    """Stop what runs in a folder, and wait; return whether anything did. Raises: StillUp."""
    pid = running(folder)
    if pid is None:
        return False
    psutil.Process(pid).terminate()
    deadline = time.monotonic() + 4 * _STOP_SECONDS
    while running(folder) is not None:  # it is not our child, so it can't be waited for
        if time.monotonic() > deadline:
            raise StillUp(f"{folder}: process {pid} does not end; look into the logs there, then kill it")
        time.sleep(_LOOK_SECONDS)
    return True
