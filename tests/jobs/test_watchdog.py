"""A main process that waits for a killed one's lock ends; one that waits for anything else goes on."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from jobs.watchdog import STUCK

ROOT = Path(__file__).resolve().parents[2]

STARTS = """
    import os, signal, time
    from billiard import get_context
    from jobs.watchdog import watch
    context = get_context("spawn")
    watch(0.05, 6)
"""


def run(main: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STARTS) + textwrap.dedent(main)], cwd=ROOT, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_lock_that_a_killed_process_took_with_it_ends_the_worker():
    ended = run("""
        counter = context.Value("i", 0)
        if os.fork() == 0:
            counter.get_lock().acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        os.wait()
        with counter.get_lock():  # as `on_ready` of billiard's pool does
            counter.value += 1
        """)
    assert ended.returncode == STUCK
    told = json.loads(ended.stderr.splitlines()[0])  # billiard's tracker counts its semaphores afterwards
    assert told["level"] == "critical" and "ends, to be started again" in told["message"]


def test_half_a_message_in_a_pipe_ends_the_worker():
    ended = run("""
        ours, theirs = context.Pipe()
        os.write(theirs.fileno(), (100).to_bytes(4, "big") + b"half")
        ours.recv_bytes()
        """)
    assert ended.returncode == STUCK


@pytest.mark.parametrize("main", ["time.sleep(1.0)", "import select; select.select([], [], [], 1.0)"])
def test_whoever_waits_for_something_else_goes_on(main):
    ended = run(main)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_locks_that_are_waited_for_and_had_end_nothing():
    """Another process holds the lock two thirds of the time: many looks find the main thread waiting."""
    ended = run("""
        lock, waited, parent = context.Lock(), 0, os.getpid()
        child = os.fork()
        while child == 0 and os.getppid() == parent:
            with lock:
                time.sleep(0.1)
            time.sleep(0.05)
        if child == 0:
            os._exit(0)
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            began = time.monotonic()
            with lock:
                waited += time.monotonic() - began > 0.05
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        print(waited)
        """)
    assert (ended.returncode, ended.stderr) == (0, "") and int(ended.stdout) >= 5
