"""Steps of a hundredth of the log, where the recipe says nothing else."""

import numpy as np
import pytest

from recsys_kd.distil.batch_size import batch_rows
from recsys_kd.distil.student_training import fit_student
from recsys_kd.distil.teacher_training import fit_teacher
from recsys_kd.settings import BadRecipe, DistilConfig, StudentConfig, TeacherConfig, parse_recipe


@pytest.mark.parametrize(
    ("log_rows", "rows"),
    [(1, 256), (25_699, 256), (60_000, 600), (409_599, 4095), (409_600, 4096), (10**9, 4096)],
)
def test_a_step_takes_a_hundredth_of_the_log_between_256_and_4096_rows(log_rows, rows):
    assert batch_rows("auto", log_rows) == rows
    assert batch_rows(4096, log_rows) == 4096


class Counted:
    """A data set that notes how many rows it is asked for at once while training."""

    def __init__(self, dataset):
        self.dataset, self.sizes = dataset, []

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def __len__(self):
        return len(self.dataset)

    def batch(self, rows):
        self.sizes.append(len(rows))
        return self.dataset.batch(rows)


@pytest.mark.parametrize(("asked", "rows"), [("auto", 300), (2048, 2048)])
def test_teacher_control_and_student_take_steps_of_one_size(dataset, asked, rows):
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    assert len(dataset) == 30_000
    teacher = TeacherConfig(width=8, hidden=(8,), cross_rank=4, epochs=1, batch_size=asked)
    student = StudentConfig(width=4, hidden=(8, 4), epochs=1, batch_size=asked)
    soft = np.zeros(len(dataset), dtype=np.float32)
    for fit in (
        lambda source: fit_teacher(source, teacher, train, validation, 1),
        lambda source: fit_teacher(source, teacher, np.arange(5000), validation, 1),
        lambda source: fit_student(source, student, DistilConfig(), None, rows=train, validation=validation, seed=1),
        lambda source: fit_student(source, student, DistilConfig(), soft, rows=train, validation=validation, seed=1),
    ):
        source = Counted(dataset)
        fit(source)
        assert source.sizes[0] == rows == max(source.sizes[:2])


def test_a_batch_size_is_a_number_of_rows_or_auto(tmp_path):
    with pytest.raises(BadRecipe, match=r"teacher\.batch_size: .*'large'.*at least 1 or auto"):
        parse_recipe({"name": "s", "data": {"path": "l"}, "teacher": {"batch_size": "large"}}, "r.yaml", tmp_path)
