"""Faults strike what the run itself started and nothing else on the machine."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from tests.chaos.aim import worker_of
from tests.chaos.faults import unmounted
from tests.chaos.run import share
from tests.chaos.world import MARK, is_ours

SLEEP = "import time; time.sleep(600)"
NESTED = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a process with the run's mark."""
    started = []

    def marked(code, mark=str(tmp_path)):
        started.append(subprocess.Popen([sys.executable, "-c", code], env=os.environ | {MARK: mark}))
        return psutil.Process(started[-1].pid)

    yield marked
    for process in started:
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.kill()
        process.wait()


def test_a_pool_process_whose_worker_is_gone_is_struck_alone(start, tmp_path):
    """Its parent is then init, or whoever takes in orphans; here that is the test's own process."""
    orphan = start(SLEEP)
    assert orphan.parent() == psutil.Process() and worker_of(orphan, tmp_path) == orphan


def test_a_pool_process_is_struck_with_its_worker(start, tmp_path):
    worker = start(NESTED)
    while not worker.children():
        time.sleep(0.01)  # a process tells nobody that it has a child
    (pool,) = worker.children()
    assert worker_of(pool, tmp_path) == worker


def test_another_runs_process_is_not_this_runs(start, tmp_path):
    assert not is_ours(start(SLEEP, str(tmp_path / "other")), tmp_path) and not is_ours(psutil.Process(), tmp_path)


def test_faults_are_spread_evenly_over_the_nights():
    assert [share(300, 30, 3, published) for published in (0, 1, 13, 27, 30)] == [30, 40, 160, 300, 300]
    assert share(7, 30, 3, 0) == 1


@pytest.mark.parametrize("left", ["nothing", "file", "folder"])
def test_an_unmounted_store_comes_back_as_it_was_whatever_was_written_in_its_place(tmp_path, left):
    store = tmp_path / "store"
    store.mkdir()
    (store / "artifact").write_text("kept")
    with unmounted(store, left):
        assert (store.is_file(), store.is_dir()) == (left == "file", left == "folder")
        if left == "folder":
            (store / "shop").mkdir()
    assert [p.read_text() for p in store.iterdir()] == ["kept"] and list(tmp_path.iterdir()) == [store]
