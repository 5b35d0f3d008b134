"""The baselines of the compression benchmark are what their names say."""

import fbgemm_gpu  # noqa: F401 - registers its operators
import numpy as np
import pytest
import torch

from recsys_kd.evaluate.pareto import Point
from recsys_kd.models.names import key
from recsys_kd.models.student import Student
from recsys_kd.settings import StudentConfig
from tests.benchmarks import compression_peers as peers
from tests.benchmarks.bench_pareto import above
from tests.served import random_student

CONFIG = StudentConfig(width=4, hidden=(8, 4), id_dropout=0, epochs=1)


def test_hashed_ids_share_the_rows_of_their_remainder(dataset):
    model = peers.Shared(dataset.schema, CONFIG, 0.25, False).eval()
    batch, rows = dataset.batch(np.arange(200)), model.rows_of["user_id"]
    got = model._lookup(dataset.schema.field("user_id"), batch)
    table = model.tables[key("user_id")]
    assert len(table) == rows == int(0.25 * dataset.schema.vocabularies["user_id"].size)
    assert torch.equal(got, table[torch.from_numpy(batch.ids["user_id"] % rows)])


def test_quotients_tell_ids_of_one_remainder_apart(dataset):
    model = peers.Shared(dataset.schema, CONFIG, 0.3, True).eval()
    with torch.no_grad():
        model.quotients[key("user_id")].normal_()
    batch, rows = dataset.batch(np.arange(500)), model.rows_of["user_id"]
    user = batch.ids["user_id"]
    got = model._lookup(dataset.schema.field("user_id"), batch).detach().numpy()
    one, two = (t[key("user_id")].detach().numpy() for t in (model.tables, model.quotients))
    want = one[user % rows][:, :4] * two[user // rows][:, :4]
    assert np.allclose(got[:, :4], want) and np.allclose(got[:, 4], one[user % rows][:, 4] + two[user // rows][:, 4])
    assert len({tuple(r) for r in got.round(6)}) == len(set(user))


def test_pooled_rows_are_their_mean(dataset):
    full = Student(dataset.schema, CONFIG).eval()
    shared = peers.Shared(dataset.schema, CONFIG, 1.0, False).eval()
    (field,) = [f for f in dataset.schema.fields if f.kind == "bag"]
    shared.tables[key(field.vocabulary)].data = full.tables[key(field.vocabulary)].data.clone()
    batch = dataset.batch(np.arange(100))
    assert torch.allclose(shared._lookup(field, batch), full._lookup(field, batch), atol=1e-6)


@pytest.mark.parametrize(("code", "per_row", "worst"), [
    (peers.half, 2 * 6, 1e-3), (peers.fbgemm8, 6 + 8, 0.01), (peers.fbgemm4, 4 + 4, 0.16),
])  # fmt: skip
def test_number_formats_weigh_what_they_say_and_stay_near(code, per_row, worst):
    table = torch.rand(50, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    got, size = code(table)
    assert size == 50 * per_row and got.shape == table.shape
    assert 0 < (got - table).abs().max() <= worst


def test_a_student_in_another_format_scores_nearly_the_same(dataset):
    model, batch = random_student(dataset), dataset.batch(np.arange(100))
    other, size = peers.in_format(model, peers.fbgemm8)
    assert 0 < np.abs(other.score(batch) - model.score(batch)).max() < 0.1
    assert size < peers.float_bytes(model)


def test_baselines_above_ours_are_named():
    points = [
        Point("teacher", "", 10_000, 0.9),
        Point("ours", "a", 100, 0.7, 50.0),
        Point("ours", "b", 1000, 0.8, 60.0),
    ]
    points += [Point("x", "worse", 500, 0.69), Point("x", "better", 999, 0.75), Point("x", "smaller", 50, 0.85)]
    assert above(points) == ["x, better"]
