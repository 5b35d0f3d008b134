"""A main process that waits for a killed one's lock ends; one that waits for anything else goes on."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from jobs.watchdog import FAILURE, STUCK
from tests.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]

NAPPING = """
import pathlib, time
from jobs import watchdog
from jobs.app import app
here = pathlib.Path(__file__).parent
watchdog.end_when_idle = lambda *given: (here / "watched").write_text(str(given))
@app.task(name="nap")
def nap():
    (here / "napping").write_text("asleep")
    time.sleep(2)
"""
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


def test_a_worker_that_an_error_has_stopped_waits_for_its_night_and_not_for_an_idle_pool():
    ended = run("""
        import subprocess, sys
        from jobs.watchdog import end_when_idle
        night = "import time; time.sleep(1.5); print('night over', flush=True)"
        pool = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {night!r}]); time.sleep(5)"
        child = subprocess.Popen([sys.executable, "-c", pool])
        time.sleep(0.5)
        end_when_idle(0.1, 5)
        child.wait()
        """)
    assert ended.returncode == STUCK and ended.stdout == "night over\n"
    assert "its pool does not end" in ended.stderr


def test_the_last_wait_of_a_worker_whose_redis_can_not_write_is_watched(tmp_path):
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    (tmp_path / "napping.py").write_text(NAPPING)
    plain = {"broker": server.url(0), "state": server.url(1), "desk": str(tmp_path / "desk")}
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(plain))
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    told = os.environ | {"RECSYS_KD_JOBS": str(tmp_path / "jobs.yaml"), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "napping", "worker", "-Q", "light", "-c", "1"]
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(command, env=told, stdout=log, stderr=log)
    try:
        wait_for(tmp_path / "log", " ready.")
        subprocess.run([sys.executable, "-c", "from napping import nap; nap.delay()"], env=told, check=True)
        wait_for(tmp_path / "napping", "asleep")
        server.client().config_set("min-replicas-to-write", 1)  # from now on every write is refused
        assert worker.wait(timeout=100) == FAILURE  # its pool ends, this time
        assert "Unrecoverable error" in (tmp_path / "log").read_text()
        assert (tmp_path / "watched").read_text() == "(5.0, 6)"
    finally:
        worker.kill()
        server.stop()


def wait_for(path, words):
    deadline = time.monotonic() + 100
    while not path.exists() or words not in path.read_text():
        assert time.monotonic() < deadline, path.read_text() if path.exists() else path
        time.sleep(0.1)
