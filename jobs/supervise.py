"""A stage's subprocess, watched: time, memory, and whether the night is still ours."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from recsys_kd.errors import OutsideError

_POLL_SECONDS, _WEIGH_SECONDS = 0.1, 1.0
"""To look up a process's children reads all of /proc: ten times a second it took 2% of a processor."""
_TAIL_BYTES = 4000


class Stopped(OutsideError):
    """The subprocess was stopped: over a limit."""


@dataclass(frozen=True)
class Watch:
    """What a subprocess is held to.

    `beat` is called with its new lines, every `every` seconds and when it has ended; it raises to stop it.
    """

    seconds: float
    memory_bytes: int
    every: float
    beat: Callable[[list[str]], None]


@dataclass(frozen=True)
class Ended:
    """How a subprocess ended; a negative code is the signal that killed it."""

    code: int
    last: str
    """Its last line."""


def run(
    arguments: list[str], folder: Path, out: Path, errors: Path, watch: Watch, environment: dict[str, str]
) -> Ended:
    """Run `recsys-kd ARGUMENTS` in a session of its own; stdout goes to `out`, stderr is added to `errors`.

    Raises: Stopped, and whatever `watch.beat` raises; no process is left behind either way.
    """
    command = [sys.executable, "-m", "jobs.child", str(os.getpid()), str(folder), *arguments]
    with out.open("wb") as stdout, errors.open("ab") as stderr:
        start = stderr.tell()
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
    try:
        _wait(process, errors, start, watch)
    finally:
        _end(process)
    return Ended(process.returncode, last_line(errors, start))


def _wait(process: "subprocess.Popen[bytes]", errors: Path, position: int, watch: Watch) -> None:
    began, beaten, weighed = time.monotonic(), float("-inf"), float("-inf")
    while process.poll() is None:
        now = time.monotonic()
        if now - beaten >= watch.every:
            lines, position = _new_lines(errors, position)
            watch.beat(lines)
            beaten = now
        if now - began > watch.seconds:
            raise Stopped(f"stopped: took longer than limits.stage, {watch.seconds:g} s; raise it, or shrink the night")
        if now - weighed >= _WEIGH_SECONDS:
            _weigh(process.pid, watch.memory_bytes)
            weighed = now
        time.sleep(_POLL_SECONDS)  # a child's end, memory and messages have no common thing to wait on
    watch.beat(_new_lines(errors, position)[0])  # what it said since the last beat, its last words among them


def _weigh(pid: int, allowed: int) -> None:
    used = _memory(pid)
    if used > allowed:
        raise Stopped(
            f"stopped: held {used / 1e9:.1f} GB, limits.memory_bytes is {allowed / 1e9:.1f} GB; raise it, or shrink "
            "the night"
        )


def _memory(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        return sum(int(p.memory_info().rss) for p in (root, *root.children(recursive=True)))
    except psutil.Error:
        return 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill whatever is left of the subprocess and its own children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _new_lines(path: Path, position: int) -> tuple[list[str], int]:
    with path.open("rb") as file:
        file.seek(position)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), position + len(whole)


def last_line(path: Path, start: int) -> str:
    """Return the last line that was written after `start`, without warnings of libraries where there is one."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - _TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("recsys-kd: ")]
    return (own or lines or ["it said nothing"])[-1]
