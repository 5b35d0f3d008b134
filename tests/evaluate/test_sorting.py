import numpy as np
import pytest

from recsys_kd.evaluate.metrics import auc, calibration, gauc
from recsys_kd.evaluate.sample import Sample, numbered
from recsys_kd.evaluate.sorting import sort_scores


def ties(rows=3000, seed=0):
    rng = np.random.default_rng(seed)
    score = np.round(rng.normal(size=rows) * 3).astype(np.float32)
    score[score == 0] = rng.choice([0.0, -0.0], size=int((score == 0).sum()))
    label = (rng.random(rows) < 0.3).astype(np.float32)
    return score, Sample(label, rng.random(rows).astype(np.float32), rng.integers(0, 90, rows), np.arange(rows))


def test_sorted_rows_give_back_rows_scores_and_tie_groups():
    score = np.array([2.5, -1, 0.0, -3e38, -0.0, 2.5], dtype=np.float32)
    at, whole = sort_scores(score), slice(0, 6)
    assert at.rows(whole).tolist() == [3, 1, 2, 4, 0, 5]
    assert at.scores(whole).tolist() == score[at.rows(whole)].tolist()
    assert at.heads(whole).tolist() == [0, 1, 2, 4]
    # A cut in the middle of a tie group moves to where the group begins.
    assert at.whole(np.array([3, 5])) == (slice(0, 2), slice(2, 4), slice(4, 6))


def test_blocks_of_sorted_rows_change_nothing(monkeypatch):
    score, sample = ties()
    whole = auc(score, sample), gauc(score, sample)
    for module in ("sorting", "sample"):
        monkeypatch.setattr(f"recsys_kd.evaluate.{module}.BLOCK_SORTED", 64)
    assert len(list(sort_scores(score).blocks())) > 5
    for one, found in zip(whole, (auc(score, sample), gauc(score, sample)), strict=True):
        assert found.value == one.value
        assert found.sums.columns == pytest.approx(one.sums.columns, abs=1e-12)


def test_placements_are_those_of_every_pair_counted_by_hand():
    score, sample = ties(200)
    ups, downs = (score[sample.positive == side] for side in (True, False))
    won = (ups[:, None] > downs).astype(float) + 0.5 * (ups[:, None] == downs)
    found = auc(score, sample)
    assert found.value == pytest.approx(won.mean(), abs=1e-14)
    user = np.unique(sample.user, return_inverse=True)[1]
    assert found.sums.columns[:, 0] == pytest.approx(
        np.bincount(user[sample.positive], won.mean(axis=1), user.max() + 1)
    )
    assert found.sums.columns[:, 2] == pytest.approx(
        np.bincount(user[~sample.positive], won.mean(axis=0), user.max() + 1)
    )


def test_a_constant_score_is_one_bin_and_one_tie_group():
    _, sample = ties(500)
    score = np.full(500, -1.5, dtype=np.float32)
    assert auc(score, sample).value == 0.5 and len(calibration(score, sample, 20)) == 1


def test_codes_are_numbered_in_their_order():
    keys, number = numbered(np.array([7, -2, 7, 10**18, -2]))
    assert keys.tolist() == [-2, 7, 10**18] and number.tolist() == [1, 0, 1, 2, 0] and number.dtype == np.int32
