"""Models of other nights on tonight's log, fallback lookups counted, calibration by weight."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys_kd.batch import Bag, Batch
from recsys_kd.data.encode import encode
from recsys_kd.flow.evaluation import Fallback, as_taken, last_values, score_compiled
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.schema import Field, Schema, Vocabulary
from recsys_kd.settings import load_recipe
from tests.served import compressed, head, random_student


def schema(mean, std, max_length):
    return Schema(
        (
            Field("user_id", "id", "request", "user_id"),
            Field("item_id", "id", "item", "item_id"),
            Field("history", "bag", "request", "item_id", max_length=max_length),
            Field("basket", "dense", "request", mean=mean, std=std),
        ),
        {name: Vocabulary(name, 5, "int64") for name in ("user_id", "item_id")},
    )


def batch(values, offsets, dense):
    n = len(dense)
    one, z = np.ones(n, dtype=np.float32), np.zeros(n, dtype=np.int64)
    ids = {"user_id": z, "item_id": z}
    return Batch(
        ids, {"history": Bag(np.array(values), np.array(offsets))}, {"basket": np.array(dense, dtype=np.float32)},
        one, one, z, z, z, z,
    )  # fmt: skip


def test_a_model_gets_numbers_in_its_own_standardization():
    # 30 and 50 euros are 0 and 2 for a log of mean 30 and std 10, and 2 and 6 for a model of mean 20 and std 5.
    given = as_taken(batch([], [0, 0, 0], [[0.0], [2.0]]), schema(30.0, 10.0, 3), schema(20.0, 5.0, 3))
    assert given.dense["basket"].tolist() == [[2.0], [6.0]]
    same = as_taken(batch([], [0, 0, 0], [[0.1], [0.2]]), schema(30.0, 10.0, 3), schema(30.0, 10.0, 3))
    assert same.dense["basket"].tolist() == batch([], [0, 0, 0], [[0.1], [0.2]]).dense["basket"].tolist()


def test_a_model_gets_histories_of_its_own_length():
    given = as_taken(batch([1, 2, 3, 4], [0, 3, 4], [[0.0], [0.0]]), schema(0, 1, 50), schema(0, 1, 2)).bags["history"]
    assert given.values.tolist() == [2, 3, 4] and given.offsets.tolist() == [0, 2, 3]
    cut = last_values(Bag(np.array([7, 8, 9]), np.array([0, 0, 3, 3])), 1)
    assert cut.values.tolist() == [9] and cut.offsets.tolist() == [0, 0, 1, 1]


def test_a_model_of_shorter_histories_is_scored_as_it_would_serve(dataset):
    """Offline scores of a model that takes 2 values, on a log of 20, are those of the log cut to 2."""
    student = compressed(dataset, random_student(dataset), keep_rows=0.9).served
    fields = tuple(dataclasses.replace(f, max_length=2) if f.name == "history" else f for f in dataset.schema.fields)
    short = dataclasses.replace(student, schema=dataclasses.replace(student.schema, fields=fields))
    scores, _ = score_compiled(short, dataset)
    index, items = head(dataset, 300)
    given = dataset.batch(index, catalogue=True)
    cut = dataclasses.replace(given, bags={"history": last_values(given.bags["history"], 2)})
    assert scores[:300] == pytest.approx(OfflineModel(student, dataset).score_rows(cut, items), abs=1e-6)
    assert np.abs(scores[:300] - OfflineModel(student, dataset).score_rows(given, items)).max() > 1e-3


def test_a_log_scores_as_its_raw_rows_do_histories_of_items_that_training_never_saw_too(shop, tmp_path):
    recipe = load_recipe(shop.recipe)
    dataset = encode(recipe.data.model_copy(update={"min_count": 200}), recipe.split, tmp_path / "rows")
    unseen = len(dataset.keys("item")) - len(dataset.keys("item_id"))
    made = compressed(dataset, random_student(dataset), ratio=None, keep_rows=1.0).served
    rows, width = dataset.splits["test"], len(dataset.keys("item_id"))
    beyond = dataset.batch(np.arange(rows.start, rows.stop), catalogue=True).bags["history"].values > width
    assert unseen > 5 and beyond.sum() > 50
    first = dataset.column("timestamp")[rows.start]
    log = [row for row in pq.read_table(recipe.data.path).to_pylist() if row["timestamp"] >= first]
    ranker = Ranker(made)
    fields = ("user_id", "device", "hour", "history")
    raw = [ranker.score({f: row[f] for f in fields}, [row["item_id"]], logits=True)[0] for row in log]
    assert np.abs(np.sort(raw) - np.sort(score_compiled(made, dataset)[0])).max() < 1e-4


def test_fallback_lookups_are_counted_before_and_after_pruning_on_the_same_rows(dataset):
    student = compressed(dataset, random_student(dataset), keep_rows=0.5).served
    model, counted = OfflineModel(student, dataset), Fallback()
    index, items = head(dataset, 200)
    for part in (index[:150], index[150:]):
        counted.add(model, dataset.batch(part), dataset.column("item")[part].astype(np.int64), dataset)
    shares, given = counted.shares(), dataset.batch(index)
    unknown_item = (items == len(dataset.keys("item"))).mean()
    assert shares["before"]["item_id"] == pytest.approx(unknown_item)
    # a bag's share is of its values, however they are spread over batches
    values = given.bags["history"].values
    unseen = (values == dataset.schema.rows(dataset.schema.field("history")) - 1).mean()
    assert shares["before"]["history"] == pytest.approx(unseen)
    assert all(shares["before"][f] <= shares["after"][f] for f in shares["after"])


def test_items_without_an_embedding_are_told_as_unknown_though_their_fields_give_them_rows(shop, tmp_path):
    recipe = load_recipe(shop.recipe)
    dataset = encode(recipe.data.model_copy(update={"min_count": 200}), recipe.split, tmp_path / "rows")
    made = compressed(dataset, random_student(dataset), ratio=None, keep_rows=1.0).served
    shares = score_compiled(made, dataset)[1].shares()
    rows = dataset.splits["test"]
    known = set(dataset.keys("item_id").tolist())
    shown = dataset.keys("item")[dataset.item_rows[rows.start : rows.stop].clip(max=len(dataset.keys("item")) - 1)]
    unknown = np.mean([int(key) not in known for key in shown])
    assert unknown > 0.02 and shares["unknown"]["item_id"] == pytest.approx(unknown)
    past = dataset.batch(np.arange(rows.start, rows.stop)).bags["history"].values
    assert shares["unknown"]["history"] == pytest.approx((past == len(known)).mean()) and (past == len(known)).any()
    assert shares["before"]["item_id"] == shares["after"]["item_id"] == 0 == shares["before"]["history"]
    assert shares["unknown"]["user_id"] == shares["before"]["user_id"] > 0
