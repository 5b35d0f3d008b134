"""A warm start goes on from the champion, on the rows that it has not seen, and says so where it can't."""

import numpy as np
import pytest

from recsys_kd.data.dataset import Dataset
from recsys_kd.flow import models
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.floats import KEPT, find_warm, keep_float, taught_until
from recsys_kd.flow.night import open_registry, read, run
from recsys_kd.models.student import Student
from recsys_kd.progress import SILENT
from recsys_kd.settings import Window, load_recipe
from tests.conftest import quick


class Told(type(SILENT)):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


def until(recipe, day):
    """Return the recipe as of a night: its log ends with that day."""
    window = Window(end=f"2026-01-{day:02d}")
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"window": window, "max_quarantine": 1.0})})


@pytest.fixture
def recipe(shop, tmp_path):
    plain = quick(load_recipe(shop.recipe), tmp_path)
    gate = plain.gate.model_copy(update={"teacher_margin": 1.0, "champion_margin": 1.0, "max_ece": 1.0})
    student = plain.student.model_copy(update={"warm_start": True})
    return plain.model_copy(update={"student": student, "gate": gate})


def opened(recipe) -> Dataset:
    return read(recipe, Stages(recipe.work, SILENT))[0]


def test_the_second_night_trains_on_its_new_rows_and_a_night_again_comes_to_the_same(recipe, shop):
    days = sorted(int(p.name[-2:]) for p in (shop.folder / "log").iterdir())
    first, second = until(recipe, days[-1]), until(recipe, days[-1] + 1)
    told = Told()
    run(first, told)
    assert (
        "warm start: there is no champion that was taught before tonight's rows; training on all of them" in told.said
    )
    champion = open_registry(recipe).state(recipe.name).aliases["champion"].digest
    told = Told()
    night = run(second, told)
    a, b = opened(first), opened(second)
    new = int((np.asarray(b.column("timestamp"))[list(b.splits["train"])] >= taught_until(a)).sum())
    assert 0 < new < len(b.splits["train"]) / 2
    assert f"student: goes on from {champion[:12]} with {new:,} new rows" in told.said
    assert not any(line.startswith("control: goes on") for line in told.said)
    assert open_registry(recipe).state(recipe.name).aliases["champion"].digest == night.artifact.digest
    assert run(second, SILENT).artifact.digest == night.artifact.digest  # not from itself, but from where it came from


def test_what_is_not_there_or_does_not_fit_is_told_and_trained_in_full(recipe):
    dataset, told = opened(recipe), Told()
    assert find_warm(recipe, dataset, "f" * 64, told) is None
    assert told.said[-1] == f"warm start: the float student of {'f' * 12} is not in the store; training on all rows"
    other = recipe.model_copy(update={"student": recipe.student.model_copy(update={"width": 6})})
    earlier = opened(until(recipe, 9))
    keep_float(recipe, earlier, Student(earlier.schema, other.student), "a" * 64, None)
    assert find_warm(recipe, dataset, "a" * 64, told) is None
    assert told.said[-1] == f"warm start: {'a' * 12} has other fields or layers; training on all rows"
    assert find_warm(other, dataset, "a" * 64, told).until == taught_until(earlier)
    cold = recipe.model_copy(update={"student": recipe.student.model_copy(update={"warm_start": False})})
    assert find_warm(cold, dataset, "a" * 64, told) is None and len(told.said) == 2


def test_only_the_newest_students_are_kept(recipe):
    dataset = opened(recipe)
    student = Student(dataset.schema, recipe.student)
    for name in "abcdef":
        keep_float(recipe, dataset, student, name * 64, None)
    folder = recipe.store / recipe.name / "floats"
    assert {p.name[0] for p in folder.iterdir()} == set("abcdef"[-KEPT:])


def test_training_goes_on_where_the_past_student_ended(recipe, tmp_path):
    """With a learning rate near zero the new student is the old one, to the last id that both know."""
    still = recipe.model_copy(update={"student": recipe.student.model_copy(update={"lr": 1e-12, "epochs": 1})})
    earlier, dataset = opened(until(recipe, 9)), opened(recipe)
    (tmp_path / "a").mkdir()
    models.train_student(recipe, earlier, None, tmp_path / "a", SILENT, "student")
    old, _ = models.load_student(recipe, earlier.schema, tmp_path / "a")
    keep_float(recipe, earlier, old, "a" * 64, None)
    warm = find_warm(still, dataset, "a" * 64, SILENT)
    (tmp_path / "b").mkdir()
    models.train_student(still, dataset, None, tmp_path / "b", SILENT, "student", warm=warm)
    new, _ = models.load_student(still, dataset.schema, tmp_path / "b")
    assert warm.config(recipe.student).lr == pytest.approx(recipe.student.lr / 3)
    both = np.intersect1d(earlier.keys("user_id"), dataset.keys("user_id"))
    assert len(both) > 10
    rows = [
        m.tables["f:user_id"].detach().numpy()[np.searchsorted(d.keys("user_id"), both)]
        for m, d in ((old, earlier), (new, dataset))
    ]
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)
