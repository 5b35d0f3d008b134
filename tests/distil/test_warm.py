"""Yesterday's student, with tonight's ids and scales, scores a row as it did yesterday."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys_kd.batch import Bag, Batch
from recsys_kd.distil.warm import Past, carry, fits, rows_of
from recsys_kd.models.student import Student
from recsys_kd.schema import Field, Schema, Vocabulary
from recsys_kd.settings import StudentConfig

CONFIG = StudentConfig(width=3, hidden=(5, 4))
THEN = {"user_id": np.array([10, 20, 30]), "item_id": np.array([1, 2])}
NOW = {"user_id": np.array([20, 25, 30, 40]), "item_id": np.array([2])}


def schema(keys, mean, std):
    fields = (
        Field("user_id", "id", "request", "user_id"),
        Field("item_id", "id", "item", "item_id"),
        Field("history", "bag", "request", "item_id", max_length=3),
        Field("price", "dense", "item", mean=mean, std=std),
    )
    return Schema(fields, {n: Vocabulary(n, len(k) + 1, "int64") for n, k in keys.items()})


def batch(user, item, history, price):
    n = len(user)
    ones, zeros = np.ones(n, np.float32), np.zeros(n, np.int64)
    bag = Bag(np.array(history), np.arange(n + 1))
    ids, dense = {"user_id": np.array(user), "item_id": np.array(item)}, np.array(price, np.float32)[:, None]
    return Batch(
        ids, {"history": bag}, {"price": dense},
        label=ones, weight=ones, row_id=zeros, user=zeros, request=zeros, timestamp=zeros,
    )  # fmt: skip


@pytest.fixture
def old():
    torch.manual_seed(0)
    student = Student(schema(THEN, mean=100.0, std=50.0), CONFIG)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return student


def past(student):
    return Past(student.schema, THEN, student.state_dict())


def test_rows_by_hand():
    # 20 and 30 had rows 1 and 2; 25 and 40 are new, and the fallback stays the fallback: row 3.
    assert rows_of(NOW["user_id"], THEN["user_id"]).tolist() == [1, 3, 2, 3, 3]
    assert rows_of(np.array([5]), np.array([], dtype=np.int64)).tolist() == [0, 0]
    assert rows_of(np.array([], dtype=np.int64), np.array([5])).tolist() == [1]


def test_both_heads_score_rows_as_before_whatever_the_ids_and_scales(old):
    new = Student(schema(NOW, mean=120.0, std=25.0), CONFIG)
    assert fits(past(old), new)
    carry(past(old), new, NOW)
    # Users 20, 30, 25 (unknown then), 10 (no row now); items 2, 1 (no row now). Prices 100, 150, 20, 60.
    then = batch([1, 2, 3, 3], [1, 1, 1, 2], [1, 2, 1, 2], [(p - 100) / 50 for p in (100, 150, 20, 60)])
    now = batch([0, 2, 1, 4], [0, 0, 0, 1], [0, 1, 0, 1], [(p - 120) / 25 for p in (100, 150, 20, 60)])
    with torch.no_grad():
        a, b = old.eval()(then), new.eval()(now)
    for head in ("serving", "auxiliary"):
        assert getattr(a, head).numpy() == pytest.approx(getattr(b, head).numpy(), abs=1e-5)


def test_what_it_goes_on_from_stays_as_it_was(old):
    before = {n: t.clone() for n, t in old.state_dict().items()}
    new = Student(schema(NOW, mean=120.0, std=25.0), CONFIG)
    carry(past(old), new, NOW)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
    assert all(torch.equal(t, before[n]) for n, t in old.state_dict().items())


def test_other_layers_or_fields_do_not_fit(old):
    same = schema(NOW, mean=0.0, std=1.0)
    assert fits(past(old), Student(same, CONFIG))
    assert not fits(past(old), Student(same, CONFIG.model_copy(update={"width": 4})))
    assert not fits(past(old), Student(same, CONFIG.model_copy(update={"hidden": (5,)})))
    fewer = replace(same, fields=same.fields[:3])
    assert not fits(past(old), Student(fewer, CONFIG))
