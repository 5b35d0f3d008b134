import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.compress.coding import CodedTable, code_table, view_traffic
from recsys_kd.compress.export import code_tables, compile_student, kept_rows
from recsys_kd.compress.fold import FloatTable, View
from recsys_kd.compress.plan import (
    BadBudget,
    BudgetTooSmall,
    TablePlan,
    at_least,
    parse_bytes,
    plan_for_bytes,
    plan_for_rows,
    worth_most,
)
from recsys_kd.compress.sensitivity import Head, logits_and_gradient
from recsys_kd.distil.calibration import IDENTITY, Platt, fit_platt
from recsys_kd.flow.calibrating import calibrated, score_sample
from recsys_kd.flow.compression import compress
from recsys_kd.flow.probing import evenly, fold, keys_of, metrics_of, telling
from recsys_kd.flow.traffic import traffic_of
from recsys_kd.flow.weighing import check_budget
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.settings import CompressConfig
from recsys_kd.tables import RowCode
from tests.served import artifact, compressed, head, random_student


@pytest.mark.parametrize(("text", "value"), [("20MB", 20_000_000), ("1.5 KiB", 1536), (7, 7), ("10", 10)])
def test_sizes_are_read(text, value):
    assert parse_bytes(text) == value


def test_a_size_that_is_none_is_named():
    with pytest.raises(BadBudget, match="'many' is not a size"):
        parse_bytes("many")


def coded(z, lookups, name="t", key_bits=20):
    """Return a table whose coordinates are its values; the last row is the fallback."""
    z = np.array(z, dtype=np.float32)
    dim = z.shape[1]
    identity, zero = np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32)
    return CodedTable(name, z, identity, zero, np.ones(dim), {name: slice(0, dim)}, np.array(lookups, float), key_bits)


def test_a_row_is_worth_half_its_lookups_times_its_squared_distance_from_the_mean():
    table = coded([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], [2.0, 6.0, 1.0])
    # with two coordinates 2 * 25 / 2 and 6 * 1 / 2, less rounding: codes reach from -4 to 4 and from -1 to 1, in steps
    # of 8 / 255 and 2 / 255 in both coordinates; with the first alone 2 * 9 / 2, from -3 to 3, and 6 * 1 / 2.
    lost = np.array([2.0, 6.0]) / 2 * (np.array([8.0, 2.0]) / 255) ** 2 * 2 / 12
    assert table.saved(RowCode(2, 8)).tolist() == pytest.approx([25.0, 3.0] - lost, rel=1e-6)
    narrow = np.array([2.0, 6.0]) / 2 * (np.array([6.0, 2.0]) / 255) ** 2 / 12
    assert table.saved(RowCode(1, 8)).tolist() == pytest.approx([9.0, 3.0] - narrow, rel=1e-6)
    coarse = np.array([2.0, 6.0]) / 2 * (np.array([8.0, 2.0]) / 15) ** 2 * 2 / 12
    assert table.saved(RowCode(2, 4)).tolist() == pytest.approx([25.0, 3.0] - coarse, rel=1e-6)


def test_a_coordinate_that_was_shrunk_counts_for_what_it_stands_for():
    table = dataclasses.replace(coded([[3.0, 1.0], [0.0, 0.0]], [2.0, 1.0]), cost=np.array([4.0, 9.0]))
    # 2 / 2 * (9 * 4 + 1 * 9), less a twelfth of the squared step, (6 / 15)^2, in both: times 4 + 9.
    assert table.saved(RowCode(2, 4)).tolist() == pytest.approx([45.0 - (6 / 15) ** 2 * 13 / 12])


def test_rows_are_kept_by_worth_per_byte():
    # One number a row: 1 + 2 bytes, and 3 for its key; basis, mean and fallback take 1 + 2 + 4 + 1 + 2 = 10, an index
    # of one bucket 8. Room for two rows.
    table = coded([[1.0], [5.0], [2.0], [0.0]], [1.0, 1.0, 9.0, 0.0])
    plan = plan_for_bytes([table], 100, 100 + 10 + 8 + 12, "item")
    assert plan.tables["t"].keep.tolist() == [1, 2] and plan.predicted_bytes == 130
    # what is lost is row 0: 1 * 1 / 2, less what rounding it would have cost
    assert plan.predicted_loss == pytest.approx(0.5 - 0.5 * (2 / 255) ** 2 / 12)


def test_narrower_rows_are_chosen_over_fewer_where_they_lose_less():
    # All the worth lies in the first of eight coordinates: 9 bytes a row instead of 16 keep every row.
    z = np.zeros((101, 8))
    z[:100, 0] = 1.0
    z[:100, 7] = 0.01
    table = coded(z, np.ones(101))
    plan = plan_for_bytes([table], 0, 1100, "item")
    assert (plan.tables["t"].code.rank, len(plan.tables["t"].keep)) == (1, 100)
    # And the other way round: one row with worth in all its coordinates, the others with none.
    z = np.zeros((101, 8))
    z[0] = np.arange(8) % 2
    plan = plan_for_bytes([coded(z, np.ones(101))], 0, 1100, "item")
    assert plan.tables["t"].code.rank == 8 and 0 in plan.tables["t"].keep


def test_a_thinned_table_stands_for_the_whole():
    table = coded([[1.0], [9.0], [2.0], [9.0], [3.0], [0.0]], [2.0, 1.0, 4.0, 1.0, 6.0, 5.0])
    thin = table.thinned(2)
    assert thin.z[:, 0].tolist() == [1.0, 2.0, 3.0, 0.0] and thin.lookups.tolist() == [4.0, 8.0, 12.0, 5.0]


def test_a_plan_from_a_sample_of_the_rows_is_as_good(monkeypatch):
    rng = np.random.default_rng(0)
    table = coded(rng.normal(size=(4001, 12)) * np.exp(-np.arange(12) / 3), 1 / np.arange(1, 4002))
    whole = plan_for_bytes([table], 0, 20_000, "item")
    monkeypatch.setattr("recsys_kd.compress.pricing._SAMPLE_ROWS", 400)
    sampled = plan_for_bytes([table], 0, 20_000, "item")
    assert sampled.predicted_loss == pytest.approx(whole.predicted_loss, rel=0.02)


def test_only_the_bits_that_are_allowed_are_used():
    table = coded(np.random.default_rng(0).normal(size=(200, 8)), np.ones(200))
    for bits in ((8,), (4,)):
        assert plan_for_bytes([table], 0, 1800, "item", bits).tables["t"].code.bits == bits[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(120, 2000))
def test_a_budget_is_never_exceeded_and_always_used(traffic, budget):
    rng = np.random.default_rng(len(traffic))
    table = coded(rng.normal(size=(len(traffic) + 1, 5)), [*traffic, 1])
    plan = plan_for_bytes([table], 30, budget, "item")
    kept = plan.tables["t"]
    assert plan.predicted_bytes <= budget
    count = np.array([len(kept.keep), len(kept.keep) + 1])
    refining = kept.code.more.bytes if kept.code.more else 0
    now, more = 30 + table.fixed_bytes(kept.code) + table.bytes_for(count, kept.code) + len(kept.hot) * refining
    assert plan.predicted_bytes == now and set(kept.hot) <= set(kept.keep)
    assert len(kept.keep) == len(traffic) or more + refining > budget


def test_an_impossible_budget_names_the_smallest_possible():
    # 100 and, for one coordinate of five, 5 * (1 + 4) + 2, then 1 + 2 for the fallback, and 8 for an empty index.
    with pytest.raises(BadBudget, match="50 bytes can't be met: 138 bytes"):
        plan_for_bytes([coded(np.ones((4, 5)), np.ones(4))], 100, 50, "item")


def test_a_fraction_keeps_the_rows_worth_most():
    table = coded([[1.0], [5.0], [3.0], [2.0], [0.0]], np.ones(5))
    plan = plan_for_rows([table], 0, worth_most([table], 0.5), "item")
    assert plan.tables["t"].keep.tolist() == [1, 2]


def test_a_fraction_is_one_of_all_tables_rows_together():
    one = coded([[3.0], [1.0], [2.0], [0.0]], [1.0, 1.0, 1.0, 1.0], name="one")
    two = coded([[9.0], [8.0], [0.5], [0.0]], [1.0, 1.0, 1.0, 1.0], name="two")
    plan = plan_for_rows([one, two], 0, worth_most([one, two], 0.5), "item")
    assert plan.tables["one"].keep.tolist() == [0] and plan.tables["two"].keep.tolist() == [0, 1]


def test_a_threshold_keeps_rows_by_magnitude_whoever_looks_them_up():
    table = coded([[0.05, -0.02], [0.0, -0.1], [3.0, 0.0], [0.09, 0.09], [0.0, 0.0]], [9.0, 1.0, 1.0, 9.0, 1.0])
    assert at_least([table], 0.1)["t"].tolist() == [1, 2]
    moved = dataclasses.replace(table, mean=np.float32([0.0, -0.09]))  # rows are what they mean, not their coordinates
    assert at_least([moved], 0.1)["t"].tolist() == [0, 1, 2]


def test_pruned_rows_become_the_traffic_weighted_fallback():
    table = coded([[1.0], [2.0], [4.0], [10.0]], [3.0, 9.0, 1.0, 0.0])
    # kept row 2.0; fallback (3 * 1 + 1 * 4 + 0 * 10) / 4
    assert kept_rows(table, TablePlan(np.array([1]), RowCode(1, 8)))[:, 0].tolist() == pytest.approx(
        [2.0, 1.75], abs=1e-5
    )


def test_coordinates_give_the_values_back_and_the_first_carry_the_most_loss():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 6)).astype(np.float32)
    metric = np.diag([100.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    table = FloatTable("v", (View("a", values[:, :4], ("f",)), View("b", values[:, 4:], ("f",))))
    metrics = {"a": 2 * metric[:4, :4], "b": 2 * metric[4:, 4:]}  # each view has half of the lookups
    made = code_table("t", table, {"f": np.ones(50)}, metrics, 8)
    assert np.allclose(made.mean + made.z @ made.basis, values, atol=1e-4)
    assert made.views == {"a": slice(0, 4), "b": slice(4, 6)}
    centred = values - values.mean(axis=0)
    loss = 0.5 * 2 * np.einsum("nd,de,ne->n", centred, metric, centred)
    assert made.saved(RowCode(6, 8)).sum() == pytest.approx(loss[:-1].sum(), rel=0.05)  # the ridge adds a little
    # The first coordinate is the column that matters a hundred times more.
    assert abs(np.corrcoef(made.z[:, 0], values[:, 0])[0, 1]) > 0.99


def test_rows_that_share_a_vocabulary_row_share_its_traffic():
    view = View("v", np.zeros((3, 1), np.float32), ("f",), np.array([0, 1, 1]))
    assert view_traffic(view, {"f": np.array([4.0, 6.0])}).tolist() == [4.0, 3.0, 3.0]


def test_the_gradient_is_that_of_the_logit():
    rng = np.random.default_rng(0)
    arrays = {
        "hidden.0.bias": rng.normal(size=4), "hidden.1.weight": rng.normal(size=(3, 4)), "bias": rng.normal(size=1),
        "hidden.1.bias": rng.normal(size=3), "out.weight": rng.normal(size=3),
    }  # fmt: skip
    head, sums = Head(4, arrays), rng.normal(size=(20, 4 + 2 + 1))
    _, gradient = logits_and_gradient(head, sums)
    for column in range(7):
        step = np.zeros(7)
        step[column] = 1e-6
        up, down = (logits_and_gradient(head, sums + s)[0] for s in (step, -step))
        assert np.allclose(gradient[:, column], (up - down) / 2e-6, atol=1e-5)


def test_predicted_loss_is_what_a_small_change_costs(dataset):
    """The metric of the item table predicts the rise of logloss, against the model's own probabilities, of noise."""
    model = random_student(dataset)
    folded = fold(model, dataset, CompressConfig())
    metrics = metrics_of(folded, dataset)
    whole = compressed(dataset, model).pruned
    rows = dataset.splits["validation"]
    sample = np.arange(rows.start, rows.stop)
    before = score_sample(calibrated(whole, IDENTITY), dataset, sample).astype(np.float64)
    rng, table = np.random.default_rng(0), folded.tables["item"]
    noise = 0.03 * rng.normal(size=table.views[0].values.shape).astype(np.float32)
    views = (dataclasses.replace(table.views[0], values=table.views[0].values + noise), *table.views[1:])
    moved = dataclasses.replace(folded, tables={**folded.tables, "item": dataclasses.replace(table, views=views)})
    coded_tables = code_tables(moved, traffic_of(dataset), keys_of(dataset), metrics)
    plan = plan_for_rows(coded_tables, 0, worth_most(coded_tables, 1.0), "item")
    after = score_sample(
        calibrated(compile_student(moved, coded_tables, plan, keys_of(dataset)), IDENTITY), dataset, sample
    ).astype(np.float64)
    p = 1 / (1 + np.exp(-before))
    rise = np.mean(np.logaddexp(0, after) - p * after - np.logaddexp(0, before) + p * before)
    first = noise[dataset.column("item")[sample].astype(np.int64)].astype(np.float64)
    predicted = 0.5 * np.mean(np.einsum("nd,de,ne->n", first, metrics["item"], first))
    assert predicted == pytest.approx(rise, rel=0.25)


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
    rows = evenly(dataset.splits["validation"], 10**6)
    label = np.asarray(dataset.column("label")[rows])
    found = fit_platt(score_sample(made.served, dataset, rows), label, np.ones_like(label))
    assert (found.slope, found.offset) == pytest.approx((1.0, 0.0), abs=1e-3)


def test_the_rows_that_tell_most_are_all_of_the_rarer_outcome():
    label = np.zeros(10_000, dtype=np.float32)
    label[5::100] = 1.0  # 90 of the 9,000 rows
    rows = telling(label, range(1000, 10_000), 400)
    assert len(rows) == 400 and (np.diff(rows) > 0).all() and rows.min() >= 1000
    assert (label[rows] > 0.5).sum() == 90 and rows.max() - rows.min() > 8900
    assert (label[telling(label, range(1000, 10_000), 100)] > 0.5).sum() == 50
    assert telling(label, range(1000, 10_000), 10_000).tolist() == list(range(1000, 10_000))
    assert telling(np.ones(50), range(10, 50), 20).tolist() == evenly(range(10, 50), 20).tolist()


@pytest.mark.parametrize("budget", [9_000, 9_900, 10_400, 11_000])
def test_an_artifact_fills_its_budget_from_below(dataset, tmp_path, budget):
    made = artifact(dataset, tmp_path, bytes=budget)
    assert 0 <= budget - made.bytes_on_disk <= 0.03 * budget


@pytest.mark.parametrize("more", [0, 86, 336])
def test_a_budget_that_passes_before_training_is_met_after_it(dataset, more):
    student = random_student(dataset)
    with pytest.raises(BadBudget) as refused:
        check_budget(student, dataset, CompressConfig(bytes=1), 0)
    least = int(re.search(r"([\d,]+) bytes are needed", str(refused.value))[1].replace(",", ""))
    config = CompressConfig(bytes=least + more)
    check_budget(student, dataset, config, 0)
    made = compress(student, dataset, config, 0)
    assert made.plan.predicted_bytes <= least + more


def test_what_a_budget_leaves_for_rows_is_known_before_training(dataset):
    student = random_student(dataset)
    with pytest.raises(BudgetTooSmall) as refused:
        check_budget(student, dataset, CompressConfig(bytes=1), 0)
    rooms = [check_budget(student, dataset, CompressConfig(bytes=refused.value.needed + n), 0) for n in (0, 400, 10**6)]
    assert [r.rows for r in rooms][::2] == [0, rooms[0].ids] and 40 < rooms[1].rows < 400
    assert rooms[1].bytes == pytest.approx(400, abs=9) and len({r.ids for r in rooms}) == 1
    assert check_budget(student, dataset, CompressConfig(keep_rows=0.5), 0) is None


@pytest.mark.parametrize("fold", ["item", "field"])
@pytest.mark.parametrize("asked", [1, 4_000])
def test_what_is_said_to_be_needed_before_training_is_all_that_is_needed_after_it(dataset, tmp_path, fold, asked):
    with pytest.raises(BudgetTooSmall) as refused:
        check_budget(random_student(dataset), dataset, CompressConfig(bytes=asked, fold=fold), 0)
    least = refused.value.needed
    assert artifact(dataset, tmp_path, seed=3, bytes=least, fold=fold).bytes_on_disk <= least
    with pytest.raises(BudgetTooSmall) as after:
        compress(random_student(dataset, 3), dataset, CompressConfig(bytes=least - 1, fold=fold), 0)
    assert after.value.needed == least


def test_what_a_budget_must_be_does_not_depend_on_the_weights(dataset):
    needed = set()
    for seed in range(12):
        with pytest.raises(BadBudget) as refused:
            check_budget(random_student(dataset, seed), dataset, CompressConfig(bytes=1), 0)
        needed.add(str(refused.value))
    assert len(needed) == 1
