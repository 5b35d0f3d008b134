"""Rows in two tiers: what they are worth, how they are coded, and that recovery leaves them in their tier."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.artifact.read import open_artifact
from recsys_kd.artifact.write import write_artifact
from recsys_kd.compress.export import code_tables, coded_rows, compile_student, is_hot, kept_rows, quantized
from recsys_kd.compress.plan import TablePlan, plan_for_bytes, plan_for_rows, worth_most
from recsys_kd.compress.pricing import Sample, fill
from recsys_kd.distil.calibration import IDENTITY
from recsys_kd.flow.calibrating import calibrated
from recsys_kd.flow.goldens import golden_queries
from recsys_kd.flow.probing import fold, keys_of, metrics_of
from recsys_kd.flow.traffic import traffic_of
from recsys_kd.models.compiled import CompiledModule
from recsys_kd.runtime.library import Kernel
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.runtime.ranker import Ranker, decode_golden
from recsys_kd.settings import CompressConfig
from recsys_kd.tables import CodedRows, Float32Table, RefinedRows, RowCode, nothing_row
from tests.compress.test_compress import coded
from tests.served import LINEAGE, head, random_student


def test_a_hot_row_is_the_sum_of_both_tiers_and_others_the_base_alone():
    base = CodedRows(np.array([[0x21, *f16(2)], [0x43, *f16(1)], [0x88, *f16(4)]], np.uint8), 4, 2)
    more = np.concatenate([np.array([[0, 255, 128, *f16(0.5)]], np.uint8), nothing_row(3, 8)])
    table = RefinedRows(base, CodedRows(more, 8, 3), np.array([0b010], np.uint8))
    assert (table.rows, table.dim, table.codes.tolist()) == (3, 3, [1, 0, 1])
    # codes 1 and 2 at step 2: -13 and -11; 3 and 4 at step 1: -4.5 and -3.5, refined by 0, 255 and 128 at half a step
    got = table.lookup(np.array([0, 1, 2]))
    assert got.ravel() == pytest.approx([-13, -11, 0, -4.5 - 63.75, -3.5 + 63.75, 0.25, 2, 2, 0], abs=1e-6)


def f16(value):
    return np.array([value], np.float16).view(np.uint8).tolist()


def test_a_hot_row_is_worth_what_its_finer_codes_and_more_numbers_save():
    table = coded([[3.0, 4.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [2.0, 6.0, 1.0])
    code = RowCode(2, 4, RowCode(3, 8))
    # Base: codes from -4 to 4 in steps of 8 / 15 and from -1 to 1 in steps of 2 / 15. What is left is at most half a
    # step, 4 / 15, but row 0's third number is 1: steps of 2 / 255. Row 1's third is 0: steps of (2 / 15) / 255.
    step = np.array([2.0, 2 / 15]) / 255
    lost = np.array([2.0, 6.0]) / 2 * step**2 * 3 / 12
    assert table.refined(code).tolist() == pytest.approx(np.array([26.0, 3.0]) - lost, rel=1e-5)


def test_a_row_looked_up_often_is_refined_and_rare_ones_are_not():
    rng = np.random.default_rng(0)
    table = coded(rng.normal(size=(201, 8)), np.append(np.r_[np.full(10, 1e4), np.ones(190)], 0.0))
    plan = plan_for_bytes([table], 0, 1_705, "item")
    kept = plan.tables["t"]
    assert kept.code == RowCode(8, 4, RowCode(8, 4)) and kept.hot.tolist() == list(range(10))
    assert plan.predicted_loss < 0.5 * plan_for_bytes([table], 0, 1_705, "item", tiers=False).predicted_loss
    plain = plan_for_bytes([dataclasses.replace(table, refinable=False)], 0, 1_705, "item").tables["t"]
    assert plain.code.more is None and len(plain.hot) == 0


def test_of_rows_kept_in_full_a_fraction_is_refined_where_it_gains_most():
    rows = coded([[3.0, 0.1], [30.0, 1.0], [2.0, 0.1], [20.0, 1.0], [0.0, 0.0]], [1.0, 9.0, 1.0, 9.0, 1.0])
    plan = plan_for_rows([rows], 0, worth_most([rows], 1.0), "item", (4,), 0.5)
    assert plan.tables["t"].hot.tolist() == [1, 3] and plan.tables["t"].code == RowCode(2, 4, RowCode(2, 4))
    plain = plan_for_rows([rows], 0, worth_most([rows], 1.0), "item", (4,))
    assert len(plain.tables["t"].hot) == 0 and plan.predicted_loss < plain.predicted_loss
    # two rows of 2 numbers (a byte) and a scale; the tier's fixed part is a row that adds nothing, and its name
    tier = rows.fixed_bytes(plan.tables["t"].code) - rows.fixed_bytes(plain.tables["t"].code)
    assert plan.predicted_bytes - plain.predicted_bytes == tier + 1 + 2 * 3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 3), st.sampled_from([4, 8]), st.integers(60, 1500))
def test_rows_are_refined_only_where_they_are_kept(count, rank, wider, bits, budget):
    rng = np.random.default_rng(count)
    table = coded(rng.normal(size=(count + 1, 9)), rng.exponential(size=count + 1))
    code = RowCode(rank, 4, RowCode(rank + wider, bits))
    found = fill([Sample.whole(table)], {"t": code}, budget)
    if not np.isfinite(found.saved):
        return  # not even the fixed parts fit, or no row is hot
    keep, hot = found.keep["t"], found.hot["t"]
    assert set(hot) <= set(keep) and found.bytes <= budget
    size = table.fixed_bytes(code) + int(table.bytes_for(np.array([len(keep)]), code)[0])
    assert found.bytes == size + len(hot) * code.more.bytes


def test_refined_rows_are_near_and_the_others_have_zeros_beyond_their_rank():
    rng = np.random.default_rng(1)
    table = coded(rng.normal(size=(41, 6)), np.ones(41))
    plan = TablePlan(np.arange(0, 40, 2), RowCode(3, 4, RowCode(6, 8)), np.arange(0, 40, 8))
    rows = kept_rows(table, plan)
    hot = is_hot(plan)
    assert rows.shape == (21, 6) and np.flatnonzero(hot).tolist() == [0, 4, 8, 12, 16]
    assert (rows[~hot, 3:] == 0).all() and np.array_equal(rows[hot], table.z[plan.hot])
    made = coded_rows(Float32Table(rows, hot, plan.code))
    error = np.abs(made.lookup(np.arange(21)) - rows)
    assert error[hot].max() < np.abs(rows).max() / 127 and made.more.rows == 6
    assert error[~hot, 3:].max() < 1e-6 and error[~hot].max() > error[hot].max()


def tiered(dataset):
    """Return a random student, its rows in two tiers wherever they may be: pruned, and quantized."""
    folded = fold(random_student(dataset), dataset, CompressConfig())
    tables = code_tables(folded, traffic_of(dataset), keys_of(dataset), metrics_of(folded, dataset))
    plan = plan_for_rows(tables, 0, worth_most(tables, 0.8), "item")
    plans = {}
    for table in tables:
        kept, more = plan.tables[table.name], RowCode(min(5, table.dim), 8)
        plans[table.name] = TablePlan(kept.keep, RowCode(2, 4, more), kept.keep[::3])
    plan = dataclasses.replace(plan, tables=plans)
    pruned = calibrated(compile_student(folded, tables, plan, keys_of(dataset)), IDENTITY)
    return pruned, quantized(pruned), plan


def test_the_served_rows_come_in_tiers_and_every_scorer_agrees(dataset, tmp_path):
    pruned, served, plan = tiered(dataset)
    assert all(isinstance(t, RefinedRows) for t in served.tables.values())
    artifact = write_artifact(tmp_path, "shop", served, LINEAGE, golden_queries(served, dataset))
    ranker = Ranker.open(artifact.path)  # golden queries, by the kernel where there is one
    assert set(plan.summary()["hot_bits"].values()) == {8} and plan.summary()["hot_rows"]["item"] > 10
    index, items = head(dataset)
    read = OfflineModel(open_artifact(artifact.path)[1], dataset).score_rows(dataset.batch(index), items)
    assert np.array_equal(read, OfflineModel(served, dataset).score_rows(dataset.batch(index), items))
    exact = OfflineModel(pruned, dataset).score_rows(dataset.batch(index), items)
    assert 0 < np.abs(read - exact).mean() < 0.1
    keys = dataset.keys("item")
    for query in golden_queries(served, dataset):
        other = dataclasses.replace(query, candidates=[int(k) for k in keys[:50]])
        request = decode_golden(ranker.student, other)
        twin = Ranker(served, use=Kernel(None, "numpy")).score_encoded(*request)
        assert np.abs(ranker.score_encoded(*request) - twin).max() < 1e-5


@pytest.mark.parametrize(("dense_rows", "kind"), [(0, torch.optim.SparseAdam), (10**6, torch.optim.Adam)])
def test_recovery_leaves_every_row_in_its_tier(dataset, monkeypatch, dense_rows, kind):
    monkeypatch.setattr("recsys_kd.models.gradients._DENSE_ROWS", dense_rows)
    pruned, _, _ = tiered(dataset)
    module = CompiledModule(pruned, OfflineModel(pruned, dataset).moves)
    index, items = head(dataset)
    optimizer = kind(list(module.rows.values()), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(dataset.batch(index), items).square().sum().backward()
        optimizer.step()
    for name, table in module.compiled().tables.items():
        before = pruned.tables[name]
        assert np.array_equal(table.hot, before.hot) and table.code == before.code and table.code.rank == 2
        assert (table.data[~table.hot, 2:] == 0).all()
        if name in ("item", "user_id.folded"):
            assert (table.data[table.hot, 2:] != before.data[table.hot, 2:]).any()
