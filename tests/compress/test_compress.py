import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.compress.export import column_scales, key_bytes, prune_table, row_worth
from recsys_kd.compress.fold import FloatTable
from recsys_kd.compress.plan import BadBudget, TableCost, parse_bytes, plan_for_bytes, plan_for_fraction
from recsys_kd.distil.calibration import IDENTITY, Platt, fit_platt
from recsys_kd.flow.compression import calibrated, score_range
from recsys_kd.runtime.offline import OfflineModel
from tests.served import artifact, compressed, head, random_student


@pytest.mark.parametrize(("text", "value"), [("20MB", 20_000_000), ("1.5 KiB", 1536), (7, 7), ("10", 10)])
def test_sizes_are_read(text, value):
    assert parse_bytes(text) == value


def test_a_size_that_is_none_is_named():
    with pytest.raises(BadBudget, match="'many' is not a size"):
        parse_bytes("many")


def test_rows_are_kept_by_worth_per_byte():
    # users: 10 bytes a row, items: 20; per byte 0.6 0.4 | 0.45 0.05.
    costs = [TableCost("user", np.array([6.0, 4.0]), 2, 4), TableCost("item", np.array([9.0, 1.0]), 12, 4)]
    plan = plan_for_bytes(costs, 100, 100 + 6 + 16 + 30, "item")
    assert {k: v.tolist() for k, v in plan.keep.items()} == {"user": [0], "item": [0]}
    assert plan.predicted_bytes == 152


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(60, 2000))
def test_a_budget_is_never_exceeded(traffic, budget):
    costs = [TableCost("t", np.array(traffic, dtype=float), 5, 8)]
    plan = plan_for_bytes(costs, 30, budget, "item")
    assert plan.predicted_bytes <= budget
    assert plan.predicted_bytes == 30 + 9 + 17 * len(plan.keep["t"])
    assert len(plan.keep["t"]) == len(traffic) or budget - plan.predicted_bytes < 17


def test_an_impossible_budget_names_the_smallest_possible():
    with pytest.raises(BadBudget, match="50 bytes can't be met: 109 bytes"):
        plan_for_bytes([TableCost("t", np.ones(3), 5, 8)], 100, 50, "item")


def test_a_fraction_keeps_the_most_used_rows():
    plan = plan_for_fraction([TableCost("t", np.array([1.0, 5.0, 3.0, 2.0]), 5, 8)], 0, 0.5, "item")
    assert plan.keep["t"].tolist() == [1, 2]


def test_pruned_rows_become_the_traffic_weighted_fallback():
    table = FloatTable(np.array([[1.0], [2.0], [4.0], [10.0]], dtype=np.float32), "v", ("f",))
    rows = prune_table(table, np.array([1]), np.array([3.0, 9.0, 1.0, 0.0]))
    # kept row 2.0; fallback (3 * 1 + 1 * 4 + 0 * 10) / 4
    assert rows[:, 0].tolist() == pytest.approx([2.0, 1.75], abs=1e-5)


def test_a_row_is_worth_its_lookups_times_its_distance_from_the_mean():
    table = FloatTable(np.array([[9.0, 0.0, 0.0], [9.0, 0.0, 2.0], [9.0, 0.0, 2.0]], dtype=np.float32), "v", ("f",))
    # mean of the last two columns, weighted 2, 1, 1: (0, 1); squared distances 1, 1, 1; the fallback is not for sale.
    assert row_worth(table, np.array([2.0, 1.0, 1.0]), 1).tolist() == pytest.approx([2.0, 1.0], abs=1e-5)


def test_key_width_follows_the_largest_key():
    assert key_bytes(np.array([1, 2**31 - 1])) == 4 and key_bytes(np.array([1, 2**31])) == 8


def test_column_scale_is_the_root_mean_square():
    assert column_scales(np.array([[3.0, 0.0], [4.0, 0.0]], dtype=np.float32))[0] == pytest.approx(12.5**0.5)


@pytest.mark.parametrize("fold", ["item", "field"])
def test_the_folded_student_scores_like_the_student(dataset, fold):
    model = random_student(dataset)
    made = compressed(dataset, model, fold=fold)
    index, items = head(dataset)
    want = model.score(dataset.batch(index))
    exact = OfflineModel(calibrated(made.pruned, IDENTITY), dataset).score_rows(dataset.batch(index), items)
    int8 = OfflineModel(calibrated(made.served, IDENTITY), dataset).score_rows(dataset.batch(index), items)
    assert np.abs(exact - want).max() < 1e-4
    assert np.abs(int8 - want).max() < 0.1 and np.abs(int8 - want).mean() < 0.02


def test_calibration_is_the_last_step_and_is_fitted_to_the_served_student(dataset):
    made = compressed(dataset, random_student(dataset), keep_rows=0.5)
    index, items = head(dataset)
    plain = OfflineModel(calibrated(made.served, IDENTITY), dataset).score_rows(dataset.batch(index), items)
    scaled = OfflineModel(calibrated(made.served, Platt(2.0, -1.0)), dataset).score_rows(dataset.batch(index), items)
    assert np.allclose(scaled, 2 * plain - 1, atol=1e-4)
    rows = dataset.splits["validation"]
    label = dataset.column("label")[rows.start : rows.stop]
    found = fit_platt(score_range(made.served, dataset, rows), np.asarray(label))
    assert (found.slope, found.offset) == pytest.approx((1.0, 0.0), abs=1e-3)


@pytest.mark.parametrize("budget", [9_000, 11_000])
def test_an_artifact_fills_its_budget_from_below(dataset, tmp_path, budget):
    made = artifact(dataset, tmp_path, bytes=budget)
    assert 0 <= budget - made.bytes_on_disk <= 0.03 * budget
