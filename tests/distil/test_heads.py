"""Two heads read as one: the mix is a logistic regression, and the serving head becomes it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from recsys_kd.distil.heads import SERVING_ALONE, Heads, Mix, both_heads, fit_mix
from recsys_kd.distil.loop import validation_metrics
from recsys_kd.distil.student_training import fit_student
from recsys_kd.distil.teacher_training import fit_teacher
from recsys_kd.models.student import Student
from recsys_kd.settings import DistilConfig, StudentConfig, TeacherConfig

STUDENT = StudentConfig(width=8, hidden=(16, 8), epochs=5, patience=3, batch_size=256)


def heads_of(serving, auxiliary, label, weight=None):
    weight = np.ones(len(label)) if weight is None else weight
    return Heads(*(torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in (serving, auxiliary, label, weight)))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    serving, auxiliary = rng.normal(size=4000), rng.normal(size=4000) * 30
    label = rng.random(4000) < 1 / (1 + np.exp(-(0.5 * serving + 0.03 * auxiliary - 1)))
    return serving, auxiliary, label


def test_the_mix_is_the_logistic_regression_of_the_labels(rows):
    serving, auxiliary, label = rows
    weight = np.random.default_rng(1).integers(0, 3, len(label))
    found = fit_mix(heads_of(serving, auxiliary, label, weight), 1.0)
    peer = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000)
    peer.fit(np.stack([serving, auxiliary], axis=1), label, sample_weight=weight)
    assert found == pytest.approx((*peer.coef_[0], *peer.intercept_), rel=1e-3)
    assert found.serving == pytest.approx(0.5, abs=0.15) and found.auxiliary == pytest.approx(0.03, abs=0.005)


def test_a_head_that_would_count_against_what_it_says_counts_nothing(rows):
    serving, auxiliary, label = rows
    found = fit_mix(heads_of(serving, -auxiliary, label), 1.0)
    assert found.auxiliary == 0 and found.serving == pytest.approx(0.4, abs=0.15)
    found = fit_mix(heads_of(-serving, auxiliary, label), 1.0)
    assert found.serving == 0 and found.auxiliary == pytest.approx(0.03, abs=0.005)
    assert fit_mix(heads_of(-serving, -auxiliary, label), 1.0) == SERVING_ALONE


def test_without_both_classes_or_a_wide_part_the_serving_head_is_alone(rows):
    serving, auxiliary, label = rows
    assert fit_mix(heads_of(serving, auxiliary, np.ones(4000)), 1.0) == SERVING_ALONE
    assert fit_mix(heads_of(serving, auxiliary, label, np.zeros(4000)), 1.0) == SERVING_ALONE
    assert fit_mix(heads_of(serving, auxiliary, label), -100.0) == SERVING_ALONE


def test_the_serving_head_becomes_the_mix_but_for_its_slope(dataset):
    torch.manual_seed(0)
    model = Student(dataset.schema, STUDENT)
    with torch.no_grad():
        model.auxiliary_scale.fill_(0.4)
        for table in model.tables.values():
            table.mul_(10)
    before = both_heads(model, dataset, range(0, 500))
    model.mix_heads(0.3, 0.6)
    mixed = both_heads(model, dataset, range(0, 500)).serving
    wanted = (0.3 * before.serving + 0.6 * before.auxiliary) / (0.3 + 0.6 * 0.4)
    assert float(wanted.std()) > 0.1 and torch.allclose(mixed, wanted, atol=1e-5)


@pytest.fixture(scope="module")
def teacher(dataset):
    """A teacher that knows the validation days too: its head is sure to be worth something there."""
    config = TeacherConfig(width=16, hidden=(32,), cross_rank=8, epochs=4, batch_size=512)
    return fit_teacher(dataset, config, range(len(dataset)), dataset.splits["validation"], 3).model


@pytest.mark.parametrize("losses", [{"soft_bce": 1.0}, {"soft_bce": 0.5, "listwise": 1.0}])
def test_a_student_serves_what_its_epochs_were_chosen_by(dataset, teacher, losses):
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    soft = np.full(len(dataset), np.nan, dtype=np.float32)
    soft[train.start : train.stop] = teacher.score(dataset.batch(slice(train.start, train.stop)))

    def fitted(**more):
        return fit_student(
            dataset, STUDENT, DistilConfig(losses=losses, **more), soft, rows=train, validation=validation, seed=1
        )

    found = fitted()
    assert found.mix.auxiliary > 0 and found.mix != SERVING_ALONE
    chosen = found.fit.epochs[found.fit.best].validation_auc
    assert validation_metrics(found.model, dataset, validation)[1] == pytest.approx(chosen, abs=1e-6)
    assert fitted(head="single").mix == Mix(1.0, 0.0, 0.0)
