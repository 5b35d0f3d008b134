"""A stage whose process is killed outright goes on from its checkpoint, to the very same result."""

import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import quick

TRAIN = """
import json, sys
from pathlib import Path
from recsys_kd.data.dataset import Dataset
from recsys_kd.flow.cache import Stages, remove_leftovers
from recsys_kd.flow.models import train_student
from recsys_kd.progress import SILENT
from recsys_kd.settings import Recipe

class Told(type(SILENT)):
    def note(self, message):
        print(message, flush=True)

log, work, recipe = Path(sys.argv[1]), Path(sys.argv[2]), Recipe.model_validate_json(sys.argv[3])
remove_leftovers(work)
dataset, progress = Dataset.open(log), Told()
make = lambda out: train_student(recipe, dataset, None, out, progress, "control")
print("made", Stages(work, progress).run("control", "k", make))
"""


@pytest.fixture
def start(shop, dataset, tmp_path):
    """Return a function that trains a control in a process of its own, in the named work folder."""
    from recsys_kd.settings import load_recipe

    found = quick(load_recipe(shop.recipe), tmp_path)
    student = found.student.model_copy(update={"epochs": 8, "patience": 8})  # long enough to be killed in the midst
    recipe = found.model_copy(update={"student": student}).model_dump_json()

    def started(work):
        command = [sys.executable, "-c", TRAIN, str(dataset.path), str(tmp_path / work), recipe]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return started


def test_a_run_killed_in_the_middle_of_training_comes_to_what_an_uninterrupted_one_does(start, tmp_path):
    killed = start("work")
    assert "epoch 1" in killed.stdout.readline()
    kept, deadline = tmp_path / "work" / ".control-k" / "checkpoint", time.monotonic() + 60
    while not list(kept.glob("0*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)  # a checkpoint is written without a word
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [p.name for p in (tmp_path / "work").iterdir()] == [".control-k"]
    goes_on = r"control: goes on from a checkpoint, in epoch [2-8] at row \d"
    for run, first in ((start("work"), goes_on), (start("other"), "control, epoch 1: ")):
        out, error = run.communicate(timeout=250)
        assert run.returncode == 0 and re.match(first, out), out + error
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["control-k"]
    assert not (tmp_path / "work" / "control-k" / "checkpoint").exists()
    one, two = (tmp_path / w / "control-k" / "student.safetensors" for w in ("work", "other"))
    assert one.read_bytes() == two.read_bytes()
