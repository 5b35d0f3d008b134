import dataclasses

import numpy as np
import pytest
import torch

from recsys_kd.batch import Bag, Batch
from recsys_kd.models.teacher import NotATeacher, RowOutOfTable, Teacher
from recsys_kd.models.towers import CrossNetwork
from recsys_kd.schema import Field, Schema, Vocabulary
from recsys_kd.settings import TeacherConfig

CONFIG = TeacherConfig(width=8, hidden=(16,), cross_rank=4, dropout=0.0, id_dropout=0.0, embedding_lr=0.1)


def test_one_cross_layer_by_hand():
    cross = CrossNetwork(2, 1, 1)
    with torch.no_grad():
        cross.down[0].weight.copy_(torch.tensor([[1.0, 2.0]]))
        cross.up[0].weight.copy_(torch.tensor([[1.0], [0.5]]))
        cross.up[0].bias.copy_(torch.tensor([0.0, 1.0]))
    # V x = 1*3 + 2*4 = 11; U V x + b = (11, 6.5); x0 * that + x = (33 + 3, 26 + 4).
    assert cross(torch.tensor([[3.0, 4.0]])).tolist() == [[36.0, 30.0]]


def test_only_rows_of_the_batch_change_and_the_optimizer_is_inside_backward(dataset):
    torch.manual_seed(0)
    model = Teacher(dataset.schema, CONFIG)
    before = model.state()["tables.user_id"]
    batch = dataset.batch(slice(0, 8))
    model.train()
    model(model.lookup_input(batch), model.numbers(batch)).sum().backward()
    changed = (model.state()["tables.user_id"] != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == sorted(set(batch.ids["user_id"].tolist()))


def test_weight_decay_shrinks_touched_rows(dataset):
    norms = []
    for decay in (0.0, 1.0):
        torch.manual_seed(0)
        model = Teacher(dataset.schema, CONFIG.model_copy(update={"embedding_l2": decay, "embedding_lr": 0.01}))
        batch = dataset.batch(slice(0, 8))
        for _ in range(5):
            (1e-6 * model(model.lookup_input(batch), model.numbers(batch)).sum()).backward()
        rows = batch.ids["user_id"]
        norms.append(float(model.state()["tables.user_id"][rows].norm()))
    assert norms[1] < norms[0]


def test_a_row_outside_its_table_is_refused_not_rewritten_to_row_0(dataset):
    model = Teacher(dataset.schema, CONFIG)
    batch = dataset.batch(slice(0, 4))
    bad = dataclasses.replace(batch, ids={**batch.ids, "user_id": np.full(4, 10_000)})
    with pytest.raises(RowOutOfTable, match="user_id"):
        model.score(bad)


def test_a_broken_teacher_folder_is_refused(dataset, tmp_path):
    Teacher(dataset.schema, CONFIG).save(tmp_path / "t")
    weights = tmp_path / "t" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(NotATeacher):
        Teacher.load(tmp_path / "t")


def test_a_history_counts_by_the_mean_of_its_rows():
    schema = Schema(
        (Field("user_id", "id", "request", "user_id"), Field("item_id", "id", "item", "item_id"),
         Field("history", "bag", "request", "item_id")),
        {"user_id": Vocabulary("user_id", 3, "int64"), "item_id": Vocabulary("item_id", 5, "int64")},
    )  # fmt: skip
    torch.manual_seed(1)
    model = Teacher(schema, CONFIG.model_copy(update={"embedding_l2": 0.0}))
    one, zeros = np.ones(3, np.float32), np.zeros(3, np.int64)
    bag = Bag(np.array([1, 1, 1, 1, 2]), np.array([0, 3, 4, 5]))  # row 1 three times, once, and row 2
    batch = Batch({"user_id": zeros, "item_id": zeros}, {"history": bag}, {}, one, one, zeros, zeros, zeros, zeros)
    thrice, once, other = model.score(batch).tolist()
    assert thrice == pytest.approx(once, abs=1e-6) and abs(other - once) > 1e-4
    model.train()
    table = model.state()["tables.item_id"]
    model(model.lookup_input(batch), model.numbers(batch))[:1].sum().backward()
    changed = (model.state()["tables.item_id"] != table).any(dim=1).tolist()
    assert changed == [True, True, False, False, False]
