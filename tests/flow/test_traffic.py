"""Lookups that count the less the longer ago they were, those of ids to come, and what is kept by them."""

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError

from recsys_kd.compress.export import kept_rows
from recsys_kd.distil.recovery import Recovered
from recsys_kd.flow import recovery
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.compression import compress, prune
from recsys_kd.flow.probing import code
from recsys_kd.flow.traffic import novelty, recency, traffic_of
from recsys_kd.progress import SILENT
from recsys_kd.settings import CompressConfig, load_recipe
from tests.conftest import quick
from tests.served import random_student

DAY = 86_400_000


def train_rows(dataset):
    return slice(dataset.splits["train"].start, dataset.splits["train"].stop)


def test_a_row_counts_half_for_every_half_life_and_one_in_the_mean(dataset):
    weight, stamp = recency(dataset, 2.0), dataset.column("timestamp")[train_rows(dataset)].astype(np.int64)
    ages = (stamp[-1] - stamp) / DAY
    assert weight.mean() == pytest.approx(1.0) and np.allclose(weight / weight[-1], 0.5 ** (ages / 2.0))


def test_rows_that_all_count_one_give_the_traffic_that_the_log_was_encoded_with(dataset):
    ones = np.ones(len(dataset.splits["train"]))
    kinds = set()
    for name in ["item", *(f.name for f in dataset.schema.fields if f.is_lookup)]:
        assert np.allclose(dataset.recent_traffic(name, ones), dataset.traffic(name)), name
        kinds.add("item" if name == "item" else (dataset.schema.field(name).side, dataset.schema.field(name).kind))
    assert {"item", ("request", "id"), ("request", "bag"), ("item", "categorical")} <= kinds


def test_the_lookups_of_a_user_are_what_his_rows_count(dataset):
    weight, rows = recency(dataset, 0.5), train_rows(dataset)
    user = dataset.column("user_id")[rows]
    traffic, known = traffic_of(dataset, 0.5)["user_id"], 1 - novelty(dataset)["user_id"]
    for row in (0, 7, int(user[-1])):
        assert traffic[row] == pytest.approx(known * weight[user == row].sum() / len(weight))
    assert traffic.sum() == pytest.approx(1.0)


def unknown_share(dataset, split, field="user_id"):
    rows = dataset.splits[split]
    return float(np.mean(dataset.column(field)[rows.start : rows.stop] == dataset.schema.vocabularies[field].fallback))


def test_the_fallback_row_is_looked_up_as_often_as_on_the_validation_days(dataset):
    assert unknown_share(dataset, "train") == 0.0 < unknown_share(dataset, "validation")
    traffic = traffic_of(dataset)
    assert traffic["user_id"][-1] == pytest.approx(unknown_share(dataset, "validation"))
    assert traffic["user_id"].sum() == pytest.approx(1.0)
    sides = {dataset.schema.field(name).side for name in novelty(dataset)}
    assert "item_id" in traffic_of(dataset) and "item" not in sides  # the catalogue knows new items


@pytest.mark.parametrize(("then", "now", "chance"), [(0.2, 0.6, 0.5), (0.3, 0.1, 0.0), (1.0, 1.0, 0.0)])
def test_only_so_many_more_ids_turn_unknown_as_the_validation_days_have(dataset, monkeypatch, then, now, chance):
    shares = {dataset.splits["train"]: then, dataset.splits["validation"]: now}
    monkeypatch.setattr(type(dataset), "unknown_share", lambda self, field, rows: shares[rows])
    assert list(novelty(dataset).values()) == pytest.approx([chance] * len(novelty(dataset)))
    assert then + (1 - then) * chance == pytest.approx(max(then, now))


def test_a_bags_unknown_values_count_one_each_however_long_it_is(dataset):
    rows = range(len(dataset) - 4000, len(dataset))
    values = dataset.batch(np.arange(rows.start, rows.stop)).bags["history"].values
    unknown = dataset.schema.rows(dataset.schema.field("history")) - 1
    assert 0 < dataset.unknown_share("history", rows) == np.mean(values == unknown)


def test_recovery_is_told_how_many_ids_will_be_unknown(shop, dataset, tmp_path, monkeypatch):
    recipe, told = quick(load_recipe(shop.recipe), tmp_path), []
    model = compress(random_student(dataset), dataset, recipe.compress, 40_000).pruned

    def recover(module, data, *rest):
        told.append(data.novelty)
        return Recovered(module.compiled(), 0.5, 0.5)

    monkeypatch.setattr(recovery, "recover", recover)
    recovery.recovery_stage(recipe, dataset, None, tmp_path, Stages(tmp_path, SILENT), "recovery")(model)
    assert told == [novelty(dataset)] and told[0]["user_id"] > 0


def test_new_users_are_scored_as_before_where_a_few_old_ones_are_pruned(dataset):
    config = CompressConfig(keep_rows=1.0)
    coded = code(random_student(dataset), dataset, config)
    plan = prune(coded, dataset, config, None).plan
    users = next(table for table in coded.tables if table.name == "user_id.folded")
    few = np.sort(np.argsort(users.lookups[:-1])[5:])
    pruned = kept_rows(users, dataclasses.replace(plan.tables["user_id.folded"], keep=few))[-1]
    whole = users.z[-1, : len(pruned)]
    gone = np.average(np.delete(users.z[:-1], few, axis=0)[:, : len(pruned)], axis=0)  # looked up alike
    assert np.linalg.norm(pruned - whole) < 0.2 * np.linalg.norm(gone - whole)


def test_users_of_yesterday_are_kept_for_those_of_last_week(dataset):
    model, rows = random_student(dataset), train_rows(dataset)
    kept = {}
    for name, half_life in (("all alike", None), ("recent", 0.1)):
        config = CompressConfig(keep_rows=0.3, keep_by="lookups", half_life_days=half_life)
        plan = prune(code(model, dataset, config), dataset, config, None).plan
        kept[name] = set(plan.tables["user_id.folded"].keep.tolist())
    user, stamp = dataset.column("user_id")[rows], dataset.column("timestamp")[rows]
    last = {int(u): int(t) for u, t in zip(user, stamp, strict=True)}
    gained, lost = kept["recent"] - kept["all alike"], kept["all alike"] - kept["recent"]
    assert gained and np.mean([last[u] for u in gained]) > np.mean([last[u] for u in lost])


def test_by_lookups_the_rows_looked_up_most_stay_whatever_they_hold(dataset):
    config = CompressConfig(keep_rows=0.3, keep_by="lookups")
    coded = code(random_student(dataset), dataset, config)
    plan = prune(coded, dataset, config, None).plan
    least = min(t.lookups[plan.tables[t.name].keep].min(initial=np.inf) for t in coded.tables)
    most = max(np.delete(t.lookups[:-1], plan.tables[t.name].keep).max(initial=0.0) for t in coded.tables)
    assert least >= most > 0
    share = sum(len(p.keep) for p in plan.tables.values()) / sum(len(t.z) - 1 for t in coded.tables)
    assert share == pytest.approx(0.3, abs=0.01)


def test_what_to_keep_by_needs_a_share_to_keep():
    with pytest.raises(ValidationError, match="keep_by: got `lookups` without `keep_rows`"):
        CompressConfig(ratio=20, keep_by="lookups")
