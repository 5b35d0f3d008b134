"""Processes are kept running whatever becomes of their logs."""

import shutil
import sys
import time

import pytest

from jobs import keeper
from jobs.keeper import Supervisor

SLEEPS = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


@pytest.fixture
def supervisor(tmp_path):
    made = Supervisor({"sleeper": SLEEPS}, tmp_path / "logs")
    yield made
    made.stop()


def runs(supervisor):
    process = supervisor.running.get("sleeper")
    return process is not None and process.poll() is None


def test_a_log_that_was_moved_away_ends_nothing(supervisor, tmp_path):
    supervisor.look()
    shutil.rmtree(tmp_path / "logs")
    supervisor.look()
    assert runs(supervisor)


def test_a_long_log_is_cut_though_no_copy_of_it_finds_room(supervisor, tmp_path, monkeypatch):
    supervisor.look()
    log = tmp_path / "logs" / "sleeper.log"
    while not log.read_text():
        time.sleep(0.01)
    monkeypatch.setattr(keeper, "_LOG_BYTES", 1)
    supervisor.look()
    assert log.read_text() == "" and (tmp_path / "logs" / "sleeper.log.1").read_text() == "up\n"
    (tmp_path / "logs" / "sleeper.log.1").unlink()
    (tmp_path / "logs" / "sleeper.log.1").mkdir()  # nothing can be copied there
    log.write_text("long")
    supervisor.look()
    assert log.read_text() == "" and runs(supervisor)


def test_what_can_not_be_started_now_is_started_later(supervisor, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "_RESTART_SECONDS", 0.0)
    (tmp_path / "logs").write_text("")  # no folder can be made there
    supervisor.look()
    assert not runs(supervisor)
    (tmp_path / "logs").unlink()
    supervisor.look()
    assert runs(supervisor) and supervisor.restarts == 1
