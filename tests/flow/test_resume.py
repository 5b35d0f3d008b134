"""A stage whose process is killed outright is done again, to the very same result."""

import signal
import subprocess
import sys

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

    recipe = quick(load_recipe(shop.recipe), tmp_path).model_dump_json()

    def started(work):
        command = [sys.executable, "-c", TRAIN, str(dataset.path), str(tmp_path / work), recipe]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return started


def test_a_run_killed_in_the_middle_of_training_comes_to_what_an_uninterrupted_one_does(start, tmp_path):
    killed = start("work")
    assert "epoch 1" in killed.stdout.readline()  # one epoch of three is done
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert [p.name for p in (tmp_path / "work").iterdir()] == [".control-k"]
    again, whole = start("work"), start("other")
    for run in (again, whole):
        out, error = run.communicate(timeout=250)
        assert run.returncode == 0 and "epoch 1" in out, error
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["control-k"]
    one, two = (tmp_path / w / "control-k" / "student.safetensors" for w in ("work", "other"))
    assert one.read_bytes() == two.read_bytes()
