"""The whole application on one machine: starts its processes, starts again whatever ends, stops them all together.

For trying it out, and for tests; a service manager or deploy/compose.yaml does the same in production. Celery's
workers do end when Redis is lost at the wrong moment, so something has to start them again. However `up` itself ends,
what it started ends with it.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from jobs import checks, local_redis
from jobs.config import JobsConfig
from jobs.keeper import LOOK_SECONDS, STOP_SECONDS, Supervisor
from recsys_kd.errors import InputError, OutsideError
from recsys_kd.flow.doctor import exit_code

PID = "up.pid"


class AlreadyUp(OutsideError):
    """Another `up` runs in the folder."""


class PortTaken(OutsideError):
    """Somebody listens where a process of ours would."""


class Refused(InputError):
    """With this configuration no worker starts."""


class NotReady(OutsideError):
    """No worker starts while something outside is as it is."""


class StillUp(OutsideError):
    """What `up` started does not end."""


def commands(config: JobsConfig, folder: Path, beat: bool) -> dict[str, list[str]]:
    """Return what runs beside Redis: name -> command."""
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "jobs.app"]
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
    return found


def run(config: JobsConfig, folder: Path, beat: bool) -> None:
    """Run the application until it is told to stop. Raises: AlreadyUp, PortTaken, RedisMissing, Refused, NotReady."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _run(config, folder, beat)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder: a lock that goes with its process, however that ends. Raises: AlreadyUp."""
    with (folder / PID).open("a+") as file:
        while not _locked(file, fcntl.LOCK_EX):
            if (pid := running(folder)) is not None:  # else somebody only looked
                raise AlreadyUp(f"{folder}: process {pid} runs it already; `recsys-kd jobs down {folder}` stops it")
        file.truncate(0)
        file.write(_name(psutil.Process()))
        file.flush()
        yield
        file.truncate(0)


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _run(config: JobsConfig, folder: Path, beat: bool) -> None:
    others = commands(config, folder, beat)
    _check_ports(config, others)
    redis = local_redis.missing(config)
    started = {name: local_redis.command(name, urls, folder) for name, urls in redis.items()}
    supervisor = Supervisor(started, folder, last=redis)
    _end_on_signals(supervisor)
    _start_redis(supervisor, {name: urls[0] for name, urls in redis.items()}, config)
    supervisor.commands = started | others
    print(f"up: {', '.join(supervisor.commands)}; logs in {folder}", file=sys.stderr, flush=True)
    supervisor.run()


def _check_ports(config: JobsConfig, others: dict[str, list[str]]) -> None:
    """Raise PortTaken where a process would find its port taken, and be started again and again."""
    wanted = {"metrics_port": config.metrics_port}
    wanted |= {"flower_port": config.flower_port} if "flower" in others else {}
    if "server" in others:
        wanted |= {"server_port": config.server_port, "server_grpc_port": config.server_grpc_port}
    for name, port in wanted.items():
        if port is not None and local_redis.listens(port):
            raise PortTaken(
                f"{name} {port}: somebody listens there already; if it is another `recsys-kd jobs up`, stop that one "
                f"(`recsys-kd jobs down FOLDER`), else give another `{name}` in the jobs configuration"
            )


def _end_on_signals(supervisor: Supervisor) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        supervisor.stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)


def _start_redis(supervisor: Supervisor, urls: dict[str, str], config: JobsConfig) -> None:
    """Start what the others need, and look at it as they will; where they would not start, nothing stays."""
    try:
        supervisor.look()
        local_redis.wait(urls, supervisor.running, supervisor.folder, supervisor.stopping)
        _examine(config)
    except BaseException:
        supervisor.stop()
        raise


def _examine(config: JobsConfig) -> None:
    """Print what a worker would print. Raises: Refused, NotReady where it would not start, as `doctor` ends."""
    findings = checks.examine(config) + checks.examine_machine(config)
    for finding in checks.wrong(findings):
        print(checks.line(finding), file=sys.stderr, flush=True)
    if code := exit_code(findings):
        kind = Refused if code == Refused.exit_code else NotReady
        raise kind("nothing was started: no worker starts with what is named above as `error`; mend that first")


def running(folder: Path) -> int | None:
    """Return the process that runs the application in a folder, if one does: it holds the lock."""
    try:
        with (folder / PID).open() as file:
            while not _locked(file, fcntl.LOCK_SH):
                if (pid := _holder((folder / PID).read_text())) is not None:
                    return pid
                time.sleep(0.01)  # it has the lock, and is about to write its name over another's
    except OSError:
        pass
    return None


def _name(process: psutil.Process) -> str:
    """Return a process's number and when it began: numbers are used again."""
    return f"{process.pid} {process.create_time():.2f}"


def _holder(name: str) -> int | None:
    """Return the number of the process of that name, None where it is gone, or a name is only half written."""
    try:
        pid = int(name.partition(" ")[0])
        return pid if _name(psutil.Process(pid)) == name else None
    except (ValueError, psutil.Error):
        return None


def stop(folder: Path) -> bool:
    """Stop what runs in a folder, and wait; return whether anything did. Raises: StillUp."""
    pid = running(folder)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended just now
    except PermissionError:
        raise StillUp(f"{folder}: process {pid} belongs to somebody else; stop it as that user") from None
    deadline = time.monotonic() + 4 * STOP_SECONDS
    while running(folder) is not None:  # it is not our child, so it can't be waited for
        if time.monotonic() > deadline:
            raise StillUp(f"{folder}: process {pid} does not end; look into the logs there, then kill it")
        time.sleep(LOOK_SECONDS)
    return True
