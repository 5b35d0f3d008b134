"""A night that is forked is to its worker what a fresh process is."""

import subprocess

import psutil
import pytest

from jobs.supervise import Stopped
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.chaos import warm
from tests.jobs.test_supervise import LONG, run


@pytest.fixture(autouse=True)
def forking(monkeypatch):
    monkeypatch.setattr(warm, "_LOADED", ("jobs.child",))  # these tests need no torch
    monkeypatch.setattr(subprocess, "Popen", warm._popen)


def test_its_code_and_its_last_words_come_back(tmp_path):
    SqliteRegistry(tmp_path / "registry.sqlite")
    ended = run(tmp_path, ["registry", "show", "shop", "1", "--store", str(tmp_path)])
    assert ended.code == 2 and "no version 1 of model 'shop'" in ended.last
    assert run(tmp_path, ["--help"]).code == 0 and "Usage" in (tmp_path / "stdout").read_text()


def test_it_is_stopped_over_its_limits(tmp_path):
    before = psutil.Process().children()
    with pytest.raises(Stopped, match=r"took longer than limits\.stage"):
        run(tmp_path, LONG, seconds=1.0)
    assert psutil.Process().children() == before


def test_whatever_else_is_started_is_started_as_ever():
    assert subprocess.run(["echo", "x"], capture_output=True, text=True, check=True).stdout == "x\n"
