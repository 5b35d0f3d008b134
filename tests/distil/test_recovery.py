from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recsys_kd.compress.export import quantized
from recsys_kd.distil.checkpoint import Checkpoints
from recsys_kd.distil.loop import auc
from recsys_kd.distil.recovery import Training, recover, with_unknown
from recsys_kd.distil.student_training import fit_student
from recsys_kd.flow.calibrating import score_sample, served_auc
from recsys_kd.flow.compression import compress
from recsys_kd.flow.weighing import weigh
from recsys_kd.models.compiled import CompiledModule
from recsys_kd.progress import SILENT
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.settings import CompressConfig, DistilConfig, RecoveryConfig, StudentConfig
from tests.distil.test_checkpoint import Fuse, Stopped

BUDGET = 8800
"""Room for a few rows: pruning must cost something."""
NOVELTY = {"user_id": 0.02, "history": 0.02}
BATCHES = 3  # of 512 in 1,500 rows, in each of two epochs


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


def training(dataset, soft=None, **more):
    splits = dataset.splits
    judge = partial(served_auc, dataset=dataset, sample=numbers(splits["validation"]))
    return Training(dataset, dataset.item_rows, numbers(splits["train"]), judge, soft, **more)


class Told(type(SILENT)):
    """Progress that keeps what it is told."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def run(dataset, student, soft=None, progress=SILENT, **config):
    module = CompiledModule(student, OfflineModel(student, dataset).moves)
    settings = RecoveryConfig(batch_size=512, **config)
    return recover(module, training(dataset, soft, novelty=NOVELTY), settings, DistilConfig(), 1, progress, "recovery")


def arrays_of(student):
    rows = {name: table.lookup(np.arange(table.rows)) for name, table in student.tables.items()}
    return rows | {f"array {name}": values for name, values in student.arrays.items()}


def same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(values, two[name]) for name, values in one.items())


def test_recovery_takes_back_what_pruning_cost_and_says_how_much(dataset, pruned):
    found = run(dataset, pruned)
    assert found.helped and found.after > found.before + 0.002
    # both figures are what the students score once they are coded, measured by the scorer itself
    rows = numbers(dataset.splits["validation"])
    label = torch.from_numpy(np.asarray(dataset.column("label")[rows], dtype=np.float32))
    for student, said in ((pruned, found.before), (found.student, found.after)):
        score = torch.from_numpy(score_sample(quantized(student), dataset, rows))
        assert auc(score, label) == pytest.approx(said, abs=1e-5)


class Weighted:
    """A log in which every fifth row weighs 20 and each first of five nothing."""

    def __init__(self, dataset):
        self.dataset, self.weight = dataset, np.tile(np.float32([0, 1, 1, 1, 20]), len(dataset) // 5 + 1)

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def column(self, name):
        return self.weight if name == "weight" else self.dataset.column(name)


def test_recovery_is_kept_by_the_weighted_auc_of_what_is_served(dataset, pruned):
    source, rows = Weighted(dataset), numbers(dataset.splits["validation"])
    judge = partial(served_auc, dataset=source, sample=rows)
    data = Training(dataset, dataset.item_rows, numbers(dataset.splits["train"]), judge, None)
    module = CompiledModule(pruned, OfflineModel(pruned, dataset).moves)
    found = recover(module, data, RecoveryConfig(batch_size=512), DistilConfig(), 1, SILENT, "recovery")
    label = np.asarray(dataset.column("label")[rows]) > 0.5
    for student, said in ((pruned, found.before), (module.compiled(), found.after)):
        score = score_sample(quantized(student), dataset, rows)
        truth = roc_auc_score(label, score, sample_weight=source.weight[rows])
        assert said == pytest.approx(truth, abs=1e-5)
        assert abs(truth - roc_auc_score(label, score)) > 1e-3
        assert score.tolist() != score_sample(student, dataset, rows).tolist()


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
    told = Told()
    found = run(dataset, pruned, progress=told, row_lr=1e4, lr=1e4)
    assert not found.helped and told.said[-1].endswith("; no better, so it is thrown away")
    rows = numbers(dataset.splits["test"])
    assert np.array_equal(score_sample(found.student, dataset, rows), score_sample(pruned, dataset, rows))


def test_a_share_of_the_ids_is_taken_for_unknown_and_no_other_field(dataset):
    batch, schema = dataset.batch(slice(len(dataset) - 2000, len(dataset))), dataset.schema
    draw = np.random.default_rng(0)
    made = with_unknown(batch, schema, {"user_id": 0.25}, draw)
    unknown = made.ids["user_id"] == schema.vocabularies["user_id"].fallback
    assert unknown.mean() == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(made.ids["user_id"][~unknown], batch.ids["user_id"][~unknown])
    for name in batch.ids.keys() - {"user_id"}:
        assert made.ids[name] is batch.ids[name]
    bags = with_unknown(batch, schema, {"history": 0.5}, draw).bags["history"]
    assert np.array_equal(bags.offsets, batch.bags["history"].offsets)
    assert (bags.values == schema.rows(schema.field("history")) - 1).mean() == pytest.approx(0.5, abs=0.1)


def test_the_fallback_row_is_fitted_for_unknown_ids_where_all_others_have_rows(dataset, trained):
    whole = compress(trained, dataset, CompressConfig(keep_rows=1.0), 0).pruned
    found = {}
    for chance in (0.0, 0.1):
        module = CompiledModule(whole, OfflineModel(whole, dataset).moves)
        better = iter((0.0, 1.0))
        data = replace(
            training(dataset, novelty={"user_id": chance}), judge=partial(lambda values, _: next(values), better)
        )
        fitted = recover(module, data, RecoveryConfig(batch_size=512), DistilConfig(), 1, SILENT, "recovery").student
        table = fitted.tables["user_id.folded"]
        found[chance] = table.lookup(np.array([table.rows - 1]))
    before = whole.tables["user_id.folded"]
    assert np.array_equal(found[0.0], before.lookup(np.array([before.rows - 1])))
    assert not np.array_equal(found[0.1], found[0.0])


def test_recovery_is_the_same_twice(dataset, pruned):
    assert same(arrays_of(run(dataset, pruned).student), arrays_of(run(dataset, pruned).student))


def fit_few(dataset, student, progress=SILENT, kept=None):
    soft = np.linspace(-2, 2, len(dataset), dtype=np.float32)
    judge = partial(served_auc, dataset=dataset, sample=np.arange(1500, 2000))
    data = Training(dataset, dataset.item_rows, np.arange(1500), judge, soft, NOVELTY)
    module = CompiledModule(student, OfflineModel(student, dataset).moves)
    config = RecoveryConfig(batch_size=512, epochs=2)
    found = recover(module, data, config, DistilConfig(), 1, progress, "recovery", kept)
    return (found.before, found.after), arrays_of(module.compiled())


@pytest.mark.parametrize("stops", [(1,), (BATCHES,), (BATCHES + 2,), (2, 2, 1)])
def test_a_stopped_recovery_ends_in_the_same_bits(dataset, pruned, tmp_path, stops):
    figures, whole = fit_few(dataset, pruned)
    for stop in stops:
        with pytest.raises(Stopped):
            fit_few(dataset, pruned, Fuse(stop), Checkpoints(tmp_path, every=0.0))
    again = Fuse()
    found, arrays = fit_few(dataset, pruned, again, Checkpoints(tmp_path, every=0.0))
    assert found == figures and same(arrays, whole)
    # The batch that a stop falls into is done but not written down.
    assert 10**9 - again.left == 2 * BATCHES - sum(stops)
    assert "goes on from a checkpoint, in epoch" in again.notes[0]


def test_a_finished_recovery_is_not_done_again(dataset, pruned, tmp_path):
    first = fit_few(dataset, pruned, kept=Checkpoints(tmp_path))
    again = fit_few(dataset, pruned, Fuse(0), Checkpoints(tmp_path))
    assert again[0] == first[0] and same(again[1], first[1])


def test_a_recovered_student_still_fits_the_budget(dataset, trained):
    made = compress(trained, dataset, CompressConfig(bytes=BUDGET), 0, lambda student: run(dataset, student).student)
    assert 0.95 * BUDGET < weigh(made.served, dataset, made.plan) <= BUDGET
