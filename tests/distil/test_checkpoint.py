"""A training stopped at any batch goes on from its last checkpoint, to the last bit of what it would have become."""

import numpy as np
import pytest
import torch

from recsys_kd.distil.checkpoint import Checkpoints
from recsys_kd.distil.student_training import fit_student
from recsys_kd.distil.teacher_training import fit_teacher
from recsys_kd.progress import SILENT
from recsys_kd.settings import DistilConfig, StudentConfig, TeacherConfig

ROWS, VALIDATION = range(1500), range(1500, 2000)
TEACHER = TeacherConfig(width=8, hidden=(16,), cross_rank=4, epochs=3, patience=3, batch_size=512)
STUDENT = StudentConfig(width=4, hidden=(8, 4), epochs=3, patience=3, batch_size=512)
BATCHES = 3  # of 512 in 1,500 rows, in each of three epochs


class Stopped(Exception):
    """In place of a kill."""


class Fuse(type(SILENT)):
    """Stops a training once it reported so many batches."""

    def __init__(self, batches=10**9):
        self.left, self.notes = batches, []

    def advance(self, units, **figures):
        if figures:
            self.left -= 1
            if self.left < 0:
                raise Stopped

    def note(self, message):
        self.notes.append(message)


def teacher(dataset, progress, kept):
    return fit_teacher(dataset, TEACHER, ROWS, VALIDATION, 7, progress, checkpoints=kept)


def student(dataset, progress, kept):
    soft = np.linspace(-2, 2, len(dataset), dtype=np.float32)
    options = {"rows": ROWS, "validation": VALIDATION, "seed": 7, "progress": progress, "checkpoints": kept}
    return fit_student(dataset, STUDENT, DistilConfig(), soft, **options)


def outcome(fitted):
    fit = [(e.index, e.train_loss, e.validation_loss, e.validation_auc) for e in fitted.fit.epochs]
    return fit, fitted.fit.best, {name: t.clone() for name, t in fitted.model.state_dict().items()}


def assert_same(one, two):
    assert one[:2] == two[:2]
    assert one[2].keys() == two[2].keys() and all(torch.equal(t, two[2][name]) for name, t in one[2].items())


@pytest.mark.parametrize("fit", [teacher, student])
@pytest.mark.parametrize("stops", [(1,), (BATCHES,), (BATCHES + 2,), (2, 2, 3)])
def test_a_stopped_training_ends_in_the_same_bits(fit, stops, dataset, tmp_path):
    whole = outcome(fit(dataset, SILENT, None))
    for stop in stops:
        with pytest.raises(Stopped):
            fit(dataset, Fuse(stop), Checkpoints(tmp_path, every=0.0))
    torch.manual_seed(99)  # another process has another generator
    again = Fuse()
    assert_same(outcome(fit(dataset, again, Checkpoints(tmp_path, every=0.0))), whole)
    # The batch that a stop falls into is done but not written down.
    assert 10**9 - again.left == 3 * BATCHES - sum(stops)
    assert "goes on from a checkpoint, in epoch" in again.notes[0]


def test_a_finished_training_is_not_done_again(dataset, tmp_path):
    first = outcome(student(dataset, SILENT, Checkpoints(tmp_path)))
    again = Fuse(0)
    assert_same(outcome(student(dataset, again, Checkpoints(tmp_path))), first)
    assert again.notes[0] == f"student: nothing is left to do: a checkpoint holds all of its {len(first[0])} epoch(s)"


def test_a_damaged_checkpoint_is_thrown_away_and_the_one_before_it_used(dataset, tmp_path):
    whole = outcome(student(dataset, SILENT, None))
    with pytest.raises(Stopped):
        student(dataset, Fuse(5), Checkpoints(tmp_path, every=0.0))
    last = max(tmp_path.iterdir())
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    again = Fuse()
    assert_same(outcome(student(dataset, again, Checkpoints(tmp_path, every=0.0))), whole)
    assert not last.exists() and 10**9 - again.left == 3 * BATCHES - 4


def test_half_a_checkpoint_is_none(dataset, tmp_path):
    with pytest.raises(Stopped):
        student(dataset, Fuse(1), Checkpoints(tmp_path, every=0.0))
    (only,) = tmp_path.iterdir()
    only.write_bytes(only.read_bytes()[:-10])
    assert Checkpoints(tmp_path).load() is None and list(tmp_path.iterdir()) == []


def test_without_time_gone_by_only_epochs_are_kept(dataset, tmp_path):
    with pytest.raises(Stopped):
        student(dataset, Fuse(2), Checkpoints(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Stopped):
        student(dataset, Fuse(BATCHES + 1), Checkpoints(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
