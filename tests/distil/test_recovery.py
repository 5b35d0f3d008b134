import numpy as np
import pytest
import torch

from recsys_kd.distil.loop import auc
from recsys_kd.distil.recovery import Training, recover
from recsys_kd.distil.student_training import fit_student
from recsys_kd.flow.compression import compress, score_sample, weigh
from recsys_kd.models.compiled import CompiledModule
from recsys_kd.progress import SILENT
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.settings import CompressConfig, DistilConfig, RecoveryConfig, StudentConfig

BUDGET = 8600
"""Room for a few rows: pruning must cost something."""


@pytest.fixture(scope="module")
def trained(dataset):
    config = StudentConfig(width=8, hidden=(16, 8), epochs=4, batch_size=512)
    splits = dataset.splits
    return fit_student(
        dataset, config, DistilConfig(), None, rows=splits["train"], validation=splits["validation"], seed=3
    ).model


@pytest.fixture(scope="module")
def pruned(dataset, trained):
    return compress(trained, dataset, CompressConfig(bytes=BUDGET), 0).pruned


def numbers(rows):
    return np.arange(rows.start, rows.stop)


def training(dataset, soft=None):
    splits = dataset.splits
    return Training(dataset, dataset.item_rows, numbers(splits["train"]), numbers(splits["validation"]), soft)


def run(dataset, student, soft=None, **config):
    module = CompiledModule(student, OfflineModel(student, dataset).moves)
    settings = RecoveryConfig(batch_size=512, **config)
    return recover(module, training(dataset, soft), settings, DistilConfig(), 1, SILENT, "recovery")


def test_recovery_takes_back_what_pruning_cost_and_says_how_much(dataset, pruned):
    found = run(dataset, pruned)
    assert found.helped and found.after > found.before + 0.002
    # both figures are what the students score, measured by the scorer itself
    rows = numbers(dataset.splits["validation"])
    label = torch.from_numpy(np.asarray(dataset.column("label")[rows], dtype=np.float32))
    for student, said in ((pruned, found.before), (found.student, found.after)):
        assert auc(torch.from_numpy(score_sample(student, dataset, rows)), label) == pytest.approx(said, abs=1e-5)


def test_a_teacher_pulls_the_student_to_itself(dataset, pruned):
    """Soft labels that say one thing of everything must show in the logits; labels alone must not."""
    soft = np.full(len(dataset), 3.0, dtype=np.float32)
    rows = numbers(dataset.splits["train"])
    module = CompiledModule(pruned, OfflineModel(pruned, dataset).moves)
    recover(
        module,
        training(dataset, soft),
        RecoveryConfig(batch_size=512),
        DistilConfig(losses={"soft_bce": 5.0}),
        1,
        SILENT,
        "r",
    )
    pulled = score_sample(module.compiled(), dataset, rows).mean()
    alone = CompiledModule(pruned, OfflineModel(pruned, dataset).moves)
    recover(
        alone, training(dataset), RecoveryConfig(batch_size=512), DistilConfig(losses={"soft_bce": 5.0}), 1, SILENT, "r"
    )
    assert pulled > score_sample(alone.compiled(), dataset, rows).mean() + 1.0


def test_a_fit_that_does_not_help_is_thrown_away(dataset, pruned):
    found = run(dataset, pruned, row_lr=1e4, lr=1e4)
    assert not found.helped
    rows = numbers(dataset.splits["test"])
    assert np.array_equal(score_sample(found.student, dataset, rows), score_sample(pruned, dataset, rows))


def test_recovery_is_the_same_twice(dataset, pruned):
    first, second = run(dataset, pruned).student, run(dataset, pruned).student
    for name, table in first.tables.items():
        rows = np.arange(table.rows)
        assert np.array_equal(table.lookup(rows), second.tables[name].lookup(rows))


def test_a_recovered_student_still_fits_the_budget(dataset, trained):
    made = compress(trained, dataset, CompressConfig(bytes=BUDGET), 0, lambda student: run(dataset, student).student)
    assert 0.95 * BUDGET < weigh(made.served, dataset, made.plan) <= BUDGET
