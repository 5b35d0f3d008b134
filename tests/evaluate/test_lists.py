"""Metrics of lists by hand and beside scikit-learn; ranx, slow to compile, stands beside them in the benchmark."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from recsys_kd.evaluate.lists import list_metrics, psi
from recsys_kd.evaluate.metrics import calibration
from recsys_kd.evaluate.ranking import make_lists, mrr, ndcg
from recsys_kd.evaluate.sample import Sample


def f32(*values):
    return np.array(values, dtype=np.float32)


def sample(label, request, **more):
    n = len(label)
    user = more.pop("user", np.asarray(request))
    return Sample(np.asarray(label, np.float32), np.ones(n, np.float32), user, np.asarray(request), **more)


def test_mrr_by_hand_with_and_without_ties():
    lists = make_lists(f32(3, 2, 1, 5, 5, 1, 7, 7, 7), np.repeat([0, 1, 2], 3))
    # Request 0: first click at rank 2. Request 1: one click in a tie of two: (1 + 1/2) / 2. Request 2: two clicks among
    # three that tie: the first stands first with 2/3, else second.
    values, has = mrr(lists, f32(0, 1, 1, 1, 0, 1, 1, 1, 0))
    assert values.tolist() == pytest.approx([1 / 2, 3 / 4, 2 / 3 * 1 + 1 / 3 * 1 / 2]) and has.all()


def test_a_request_without_a_click_is_left_out():
    found = list_metrics(f32(2, 1, 2, 1), sample([0, 0, 0, 1], [0, 0, 1, 1]), (2,))
    assert found["mrr"].value == pytest.approx(1 / 2) and found["ndcg@2"].value == pytest.approx(1 / np.log2(3))
    assert found["hit_rate@2"].value == 1.0


def test_revenue_ndcg_by_hand():
    # Clicks on 10 and 30, the dearer one second: (10 + 30 / log2 3) / (30 + 10 / log2 3).
    s = sample([1, 1, 0], [0, 0, 0], price=f32(10, 30, 99))
    half = 1 / np.log2(3)
    want = (10 + 30 * half) / (30 + 10 * half)
    assert list_metrics(f32(3, 2, 1), s, (3,))["revenue_ndcg@3"].value == pytest.approx(want, abs=1e-9)


def test_coverage_and_popularity_by_hand():
    # Item 0 stands in both lists, items 1, 2 and 3 in one each; the first places show 0 and 2.
    s = sample([1, 0, 0, 1, 0], [0, 0, 1, 1, 1], item=np.array([0, 1, 0, 2, 3], dtype=np.int32))
    found = list_metrics(f32(2, 1, 1, 3, 2), s, (1,))
    assert found["coverage@1"].value == 0.5
    log2 = np.log(2)
    above = (log2 - log2 / 2) + (0 - log2 / 3)
    assert found["popularity@1"].value == pytest.approx(above / 2)


def test_psi_by_hand():
    # Two bins at the median: shares 1/2, 1/2 against 1/4, 3/4.
    a, b = f32(1, 2, 3, 4), f32(1, 3, 4, 5)
    assert psi(a, b, bins=2) == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))
    assert psi(a, a) == 0.0


def test_blocks_of_requests_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    request = np.repeat(np.arange(200), rng.integers(1, 9, 200))
    n = len(request)
    columns = {"item": rng.integers(0, 50, n).astype(np.int32), "price": rng.random(n).astype(np.float32)}
    label, score = (rng.random(n) < 0.3).astype(np.float32), rng.integers(0, 6, n).astype(np.float32)
    whole = list_metrics(score, sample(label, request, **columns), (3,))
    monkeypatch.setattr("recsys_kd.evaluate.sample.BLOCK_ROWS", 40)
    cut = sample(label, request, **columns)
    assert len(cut.slate_blocks) > 10
    mixed = rng.permutation(n)
    other = sample(label[mixed], request[mixed], **{k: v[mixed] for k, v in columns.items()})
    for found in (list_metrics(score, cut, (3,)), list_metrics(score[mixed], other, (3,))):
        assert {k: m.value for k, m in found.items()} == pytest.approx(
            {k: m.value for k, m in whole.items()}, abs=1e-12
        )


def test_ndcg_with_graded_gains_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    gain, score = rng.random(40).astype(np.float32), rng.integers(0, 9, 40).astype(np.float32)
    lists = make_lists(score, np.zeros(40, dtype=np.int64))
    assert ndcg(lists, gain, 7)[0][0] == pytest.approx(ndcg_score([gain], [score], k=7), abs=1e-9)


def test_equal_scores_share_a_calibration_bin_whatever_the_logs_order():
    score, label = f32(0, 0, 0, 0, 1, 1), f32(1, 1, 0, 0, 1, 0)
    s = sample(label, np.arange(6))
    points = calibration(score, s, 3)
    assert [p.rows for p in points] == [4, 2]
    turned = calibration(score[::-1], sample(label[::-1], np.arange(6)), 3)
    assert [(p.observed, p.rows) for p in turned] == [(p.observed, p.rows) for p in points]
