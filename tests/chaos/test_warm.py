"""A night that is forked is to its worker what a fresh process is.

Each test has a process of its own: one that ran other tests may have threads (gRPC's), which a fork does not survive.
"""

import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import psutil

from jobs.supervise import Stopped
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.chaos import warm
from tests.jobs.test_supervise import LONG, run


def take_over():
    warm._LOADED = ("jobs.child",)  # these tests need no torch
    subprocess.Popen = warm._popen


def alone(function, *arguments):
    with ProcessPoolExecutor(1, get_context("spawn"), take_over) as pool:
        return pool.submit(function, *arguments).result()


def shown(folder):
    ended = run(folder, ["registry", "show", "shop", "1", "--store", str(folder)])
    return ended.code, ended.last, run(folder, ["--help"]).code, (folder / "stdout").read_text()


def test_its_code_and_its_last_words_come_back(tmp_path):
    SqliteRegistry(tmp_path / "registry.sqlite")
    code, last, helped, help_text = alone(shown, tmp_path)
    assert code == 2 and "no version 1 of model 'shop'" in last
    assert helped == 0 and "Usage" in help_text


def stopped(folder):
    before = psutil.Process().children()
    try:
        run(folder, LONG, seconds=1.0)
    except Stopped as error:
        return str(error), before == psutil.Process().children()
    return "", False


def test_it_is_stopped_over_its_limits(tmp_path):
    words, none_left = alone(stopped, tmp_path)
    assert "took longer than limits.stage" in words and none_left


def echoed():
    return subprocess.run(["echo", "x"], capture_output=True, text=True, check=True).stdout


def test_whatever_else_is_started_is_started_as_ever():
    assert alone(echoed) == "x\n"
