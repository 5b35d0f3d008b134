import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recsys_kd.evaluate.lists import list_metrics
from recsys_kd.evaluate.metrics import auc, calibration, gauc
from recsys_kd.evaluate.sample import Sample, numbered
from recsys_kd.evaluate.scores import narrow, order_of, scores_of
from recsys_kd.evaluate.sorting import sort_scores


def ties(rows=3000, seed=0):
    rng = np.random.default_rng(seed)
    score = np.round(rng.normal(size=rows) * 3).astype(np.float32)
    score[score == 0] = rng.choice([0.0, -0.0], size=int((score == 0).sum()))
    label = (rng.random(rows) < 0.3).astype(np.float32)
    return score, Sample(label, rng.random(rows).astype(np.float32), rng.integers(0, 90, rows), np.arange(rows))


def test_sorted_rows_give_back_rows_and_tie_groups():
    score = np.array([2.5, -1, 0.0, -3e38, -0.0, 2.5], dtype=np.float32)
    at, whole = sort_scores(order_of(score)), slice(0, 6)
    assert at.rows(whole).tolist() == [3, 1, 2, 4, 0, 5]
    assert at.heads(whole).tolist() == [0, 1, 2, 4]
    # A cut in the middle of a tie group moves to where the group begins.
    assert at.whole(np.array([3, 5])) == (slice(0, 2), slice(2, 4), slice(4, 6))


def test_blocks_of_sorted_rows_change_nothing(monkeypatch):
    score, sample = ties()
    whole = auc(score, sample), gauc(score, sample)
    for module in ("sorting", "sample"):
        monkeypatch.setattr(f"recsys_kd.evaluate.{module}.BLOCK_SORTED", 64)
    assert len(list(sort_scores(order_of(score)).blocks())) > 5
    for one, found in zip(whole, (auc(score, sample), gauc(score, sample)), strict=True):
        assert found.value == one.value
        assert found.sums.columns == pytest.approx(one.sums.columns, abs=1e-12)


def test_placements_are_those_of_every_pair_counted_by_hand():
    score, sample = ties(200)
    ups, downs = (score[sample.positive == side] for side in (True, False))
    w_up, w_down = (sample.weight[sample.positive == side].astype(float) for side in (True, False))
    won = (ups[:, None] > downs).astype(float) + 0.5 * (ups[:, None] == downs)
    won *= w_up[:, None] * w_down
    found = auc(score, sample)
    assert found.value == pytest.approx(won.sum() / (w_up.sum() * w_down.sum()), abs=1e-14)
    user = np.unique(sample.user, return_inverse=True)[1]
    for i, side, placed in (
        (0, sample.positive, won.sum(axis=1) / w_down.sum()),
        (2, ~sample.positive, won.sum(axis=0) / w_up.sum()),
    ):
        assert found.sums.columns[:, i] == pytest.approx(np.bincount(user[side], placed, user.max() + 1))
        weight = np.bincount(user[side], sample.weight[side].astype(float), user.max() + 1)
        assert found.sums.columns[:, i + 1] == pytest.approx(weight)


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_a_constant_score_is_one_bin_and_one_tie_group(weight):
    _, sample = ties(500)
    score = np.full(500, -1.5, dtype=np.float32)
    assert auc(score, sample).value == pytest.approx(0.5, abs=1e-15)
    same = dataclasses.replace(sample, weight=np.full(500, weight, dtype=np.float32))
    assert auc(score, same).value == 0.5 and len(calibration(score, sample, 20)) == 1


def test_codes_are_numbered_in_their_order():
    keys, number = numbered(np.array([7, -2, 7, 10**18, -2]))
    assert keys.tolist() == [-2, 7, 10**18] and number.tolist() == [1, 0, 1, 2, 0] and number.dtype == np.int32


def test_scores_that_differ_in_their_last_digit_of_float64_are_no_ties():
    p = np.random.default_rng(3).random(3000)
    label = (np.random.default_rng(4).random(3000) < p).astype(np.float32)
    sample = Sample(label, np.ones_like(label), np.arange(3000) % 90, np.arange(3000) // 5)
    truth = roc_auc_score(label, p)
    for close in (1e6 + 1e-3 * p, 1 - 1e-8 * (1 - p)):
        assert auc(close, sample).value == pytest.approx(truth, abs=1e-9)
        assert gauc(close, sample).value == pytest.approx(gauc(p, sample).value, abs=1e-9)
        lists = list_metrics(close, sample, (3,))
        assert lists["ndcg@3"].value == pytest.approx(list_metrics(p, sample, (3,))["ndcg@3"].value, abs=1e-9)


def test_what_float32_holds_stays_there_and_orders_alike_in_both_widths():
    score, _ = ties(500)
    assert narrow(score.astype(np.float64)).dtype == np.float32 and narrow(np.array([0.1])).dtype == np.float64
    fine = score + np.where(score == 0, 0.0, 1e-12)
    assert scores_of(fine).logit.dtype == np.float64
    same = np.argsort(scores_of(score).order, kind="stable") == np.argsort(scores_of(fine).order, kind="stable")
    assert same.all()
