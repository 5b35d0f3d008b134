import numpy as np
import pytest
import torch

from recsys_kd.distil.losses import hard_bce, logit_mse, soft_bce
from recsys_kd.distil.objective import objective, shuffled, terms_on_logits
from recsys_kd.distil.student_training import fit_student
from recsys_kd.distil.teacher_training import fit_teacher
from recsys_kd.models.features import Features
from recsys_kd.models.names import key
from recsys_kd.models.student import Logits, Student
from recsys_kd.settings import OVER_FEATURES, DistilConfig, StudentConfig, TeacherConfig

STUDENT = StudentConfig(width=4, hidden=(8, 4), epochs=1, batch_size=1024)
TEACHER = TeacherConfig(width=8, hidden=(16,), cross_rank=4, epochs=1, batch_size=1024)
ALL = (
    "soft_bce",
    "logit_mse",
    "listwise",
    "pairwise",
    "relaxed_ranking",
    "hidden_hint",
    "embedding_hint",
    "contrastive",
)


def logits_of(serving, auxiliary):
    return Logits(serving, auxiliary, torch.tensor(2.0), Features(torch.zeros(len(serving), 1), {}))


def test_the_loss_is_the_labels_plus_every_term_by_its_weight(dataset):
    batch = dataset.batch(slice(0, 40))
    generator = torch.Generator().manual_seed(0)
    serving, auxiliary, teacher = (torch.randn(40, generator=generator) for _ in range(3))
    label, weight = torch.from_numpy(batch.label), torch.from_numpy(batch.weight)
    distil = DistilConfig(losses={"soft_bce": 0.5, "logit_mse": 2.0}, temperature=3.0)
    hard = hard_bce(serving, label, weight) + 0.1 * 2.0
    found = objective(logits_of(serving, auxiliary), batch, teacher, distil, None, l2=0.1)
    soft = 0.5 * soft_bce(auxiliary, teacher, weight, 3.0) + 2.0 * logit_mse(auxiliary, teacher, weight)
    assert float(found) == pytest.approx(float(hard + soft), rel=1e-6)
    single = distil.model_copy(update={"head": "single"})
    found = objective(logits_of(serving, auxiliary), batch, teacher, single, None, l2=0.1)
    soft = 0.5 * soft_bce(serving, teacher, weight, 3.0) + 2.0 * logit_mse(serving, teacher, weight)
    assert float(found) == pytest.approx(float(hard + soft), rel=1e-6)
    assert float(objective(logits_of(serving, auxiliary), batch, None, distil, None, l2=0.1)) == float(hard)


@pytest.mark.parametrize("name", [n for n in ALL if n not in OVER_FEATURES])
def test_rows_that_the_teacher_never_scored_do_not_count(dataset, name):
    batch, rows = dataset.batch(slice(0, 60)), np.arange(60)
    student = torch.linspace(-1, 1, 60)
    teacher = torch.from_numpy(np.where(rows % 3 == 0, np.nan, rows / 30).astype(np.float32))
    distil = DistilConfig(losses={name: 1.0})
    known = dataset.batch(rows[rows % 3 != 0])
    keep = torch.isfinite(teacher)
    whole, part = (
        float(terms_on_logits(s, t, b, distil))
        for s, t, b in ((student, teacher, batch), (student[keep], teacher[keep], known))
    )
    assert whole == pytest.approx(part, rel=1e-4) and whole > 0


def test_whole_requests_stay_together_and_every_row_comes_once():
    rng = np.random.default_rng(0)
    requests = rng.integers(0, 60, 500)
    rows = np.arange(100, 500)
    parts = list(shuffled(rows, 50, 3, requests))
    assert sorted(np.concatenate(parts)) == rows.tolist()
    for part in parts:
        others = np.setdiff1d(rows, part)
        assert not set(requests[part]) & set(requests[others])
    largest = np.bincount(requests[rows]).max()
    assert max(map(len, parts)) < 50 + largest and len(parts) > 400 / (50 + largest)
    assert not np.array_equal(parts[0], next(shuffled(rows, 50, 4, requests)))
    assert np.array_equal(parts[0], next(shuffled(rows, 50, 3, requests)))


def test_without_requests_batches_are_a_plain_permutation():
    parts = list(shuffled(np.arange(10, 33), 10, 5, None))
    assert [len(p) for p in parts] == [10, 10, 3]
    assert np.concatenate(parts).tolist() == (np.random.default_rng(5).permutation(23) + 10).tolist()
    assert list(shuffled(np.arange(0), 10, 5, None)) == []


@pytest.fixture(scope="module")
def teacher(dataset):
    return fit_teacher(dataset, TEACHER, dataset.splits["train"], dataset.splits["validation"], 3).model


@pytest.fixture(scope="module")
def soft(dataset, teacher):
    out = np.full(len(dataset), np.nan, dtype=np.float32)
    train = dataset.splits["train"]
    out[train.start : train.stop] = teacher.score(dataset.batch(slice(train.start, train.stop)))
    return out


@pytest.mark.parametrize("name", ALL)
def test_every_term_alone_moves_the_student(dataset, teacher, soft, name):
    def fitted(labels, losses):
        return fit_student(
            dataset, STUDENT, DistilConfig(losses=losses), labels, rows=range(0, 6000),
            validation=dataset.splits["validation"], seed=3, teacher=teacher if name in OVER_FEATURES else None,
        ).model  # fmt: skip

    taught, alone = fitted(soft, {name: 1.0}), fitted(soft, {})
    table = f"tables.{key('item_id')}"
    moved = (taught.state_dict()[table] - alone.state_dict()[table]).abs()
    assert torch.isfinite(moved).all() and float(moved.max()) > 1e-3


def test_a_student_of_no_terms_is_the_control(dataset, soft):
    def score(labels):
        model = fit_student(
            dataset, STUDENT, DistilConfig(losses={}), labels, rows=range(0, 6000),
            validation=dataset.splits["validation"], seed=3,
        ).model  # fmt: skip
        return model.score(dataset.batch(slice(0, 100)))

    assert np.array_equal(score(soft), score(None))


def test_a_teachers_features_are_what_its_logit_is_made_of(dataset, teacher):
    batch = dataset.batch(slice(0, 30))
    found = teacher.features(batch)
    assert found.hidden.shape == (30, 16) and (found.hidden >= 0).all()
    names = {f.name for f in dataset.schema.fields if f.is_lookup or f.kind == "vector"}
    assert set(found.embeddings) == names == set(Student(dataset.schema, STUDENT)(batch).features.embeddings)
    table = teacher.state()["tables.item_id"]
    assert torch.equal(found.embeddings["item_id"], table[torch.from_numpy(batch.ids["item_id"])])
    x = torch.cat([*found.embeddings.values(), *(teacher.numbers(batch)[f.name] for f in teacher.dense)], dim=1)
    grouped = torch.stack(list(found.embeddings.values()), dim=1)
    pairs = 0.5 * (grouped.sum(1).square().sum(1) - grouped.square().sum((1, 2)))
    with torch.no_grad():
        logit = teacher.out(torch.cat([teacher.cross(x), found.hidden], dim=1)).squeeze(1) + teacher.pair_scale * pairs
    assert torch.allclose(logit, torch.from_numpy(teacher.score(batch)), atol=1e-5)
