import numpy as np
import torch

from recsys_kd.batch import Bag, Batch
from recsys_kd.models.names import key
from recsys_kd.models.student import Student
from recsys_kd.schema import Field, Schema, Vocabulary
from recsys_kd.settings import StudentConfig

SCHEMA = Schema(
    (Field("user_id", "id", "request", "user_id"), Field("item_id", "id", "item", "item_id"),
     Field("history", "bag", "request", "item_id")),
    {"user_id": Vocabulary("user_id", 3, "int64"), "item_id": Vocabulary("item_id", 3, "int64")},
)  # fmt: skip


def batch(user, item, history):
    z = np.zeros(1, dtype=np.int64)
    one = np.ones(1, dtype=np.float32)
    ids = {"user_id": np.array([user]), "item_id": np.array([item])}
    bags = {"history": Bag(np.array(history, dtype=np.int64), np.array([0, len(history)]))}
    return Batch(ids, bags, {}, one, one, z, z, z, z)


def test_wide_part_is_the_sum_of_pair_products_and_linear_weights():
    model = Student(SCHEMA, StudentConfig(width=2, hidden=(3,)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.tables[key("user_id")][1] = torch.tensor([1.0, 2.0, 0.5])
        model.tables[key("item_id")][0] = torch.tensor([3.0, -1.0, 0.25])
        model.tables[key("item_id")][1] = torch.tensor([1.0, 1.0, 0.5])
    # user.item = 1; history is the mean of rows 0 and 1: (2, 0), linear 0.375; user.history 2; item.history 6.
    expected = 1 + 2 + 6 + 0.5 + 0.25 + 0.375
    assert model.score(batch(1, 0, [0, 1]))[0] == np.float32(expected)
    assert model.score(batch(1, 0, []))[0] == np.float32(1 + 0.5 + 0.25)


def test_dropping_ids_only_happens_in_training():
    model = Student(SCHEMA, StudentConfig(width=2, hidden=(3,), id_dropout=0.9))
    model.eval()
    scores = {float(model.score(batch(1, 0, [0]))[0]) for _ in range(5)}
    assert len(scores) == 1
