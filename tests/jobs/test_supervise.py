"""A stage's process: held to time and memory, ended with its worker, alone on its night."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs import supervise
from jobs.machine import NotYours
from jobs.supervise import Stopped, Watch
from recsys_kd.registry.sqlite import SqliteRegistry

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)  # seconds on an idle machine, minutes on a busy one
LONG = ["synth", "out", "--rows", "100000000"]


def run(folder, arguments, seconds=60.0, memory=8 << 30, beat=lambda lines: None, every=0.1):
    watch = Watch(seconds, memory, every, beat)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    where = [a if a != "out" else str(folder / "out") for a in arguments]
    return supervise.run(where, folder, folder / "stdout", folder / "stderr", watch, environment)


def children():
    return [p for p in psutil.Process().children(recursive=True) if "jobs.child" in p.cmdline()]


def test_code_output_and_last_words_come_back(tmp_path):
    SqliteRegistry(tmp_path / "registry.sqlite")
    ended = run(tmp_path, ["registry", "show", "shop", "1", "--store", str(tmp_path)])
    assert ended.code == 2 and "no version 1 of model 'shop'" in ended.last
    assert run(tmp_path, ["--help"]).code == 0 and "Usage" in (tmp_path / "stdout").read_text()


def test_what_a_process_said_between_the_last_beat_and_its_end_is_passed_on(tmp_path):
    lines = []
    ended = run(tmp_path, ["registry", "show", "shop", "1", "--store", str(tmp_path)], beat=lines.extend, every=1e9)
    assert lines[-1] == ended.last


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"seconds": 1.0}, "took longer than limits.stage, 1 s"), ({"memory": 30 << 20}, "limits.memory_bytes is 0.0 GB")],
)
def test_a_process_over_its_limits_is_stopped_with_a_sentence_that_names_them(tmp_path, limits, words):
    with pytest.raises(Stopped, match=words):
        run(tmp_path, LONG, **limits)
    assert children() == []


def test_a_night_that_is_lost_ends_its_process(tmp_path):
    def lost(lines):
        raise NotYours("taken over")

    with pytest.raises(NotYours):
        run(tmp_path, LONG, beat=lost)
    assert children() == []


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.jobs.test_supervise import LONG, run
run(Path(sys.argv[1]), LONG)
"""


def start_worker(folder):
    command = [sys.executable, "-c", WORKER, str(folder), str(ROOT)]
    worker = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if (folder / ".lock").exists() and (folder / ".lock").read_text():
            return worker, psutil.Process(int((folder / ".lock").read_text()))
        time.sleep(0.05)
    raise TimeoutError


def test_a_killed_worker_takes_its_process_with_it(tmp_path):
    worker, child = start_worker(tmp_path)
    worker.kill()
    worker.wait()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_of_a_worker_that_was_taken_over_is_killed_by_its_successor(tmp_path):
    worker, stale = start_worker(tmp_path)
    stale.send_signal(signal.SIGSTOP)
    assert run(tmp_path, ["--help"]).code == 0
    psutil.wait_procs([stale], timeout=60)
    assert not stale.is_running() or stale.status() == psutil.STATUS_ZOMBIE
    worker.kill()
    worker.wait()
