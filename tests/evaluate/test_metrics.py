import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from recsys_kd.evaluate.evaluation import difference, evaluate, interval
from recsys_kd.evaluate.gate import calibrated
from recsys_kd.evaluate.measure import measure
from recsys_kd.evaluate.metrics import auc, calibration, ece, gauc, logloss, normalized_entropy
from recsys_kd.evaluate.ranking import hit_rate, make_lists, ndcg
from recsys_kd.evaluate.sample import Sample
from recsys_kd.settings import EvaluateConfig


def sample(label, user=None, request=None, weight=None):
    n = len(label)
    return Sample(
        np.asarray(label, dtype=np.float32),
        np.ones(n, dtype=np.float32) if weight is None else np.asarray(weight, dtype=np.float32),
        np.zeros(n, dtype=np.int64) if user is None else np.asarray(user),
        np.arange(n) if request is None else np.asarray(request),
    )


def f32(*values):
    return np.array(values, dtype=np.float32)


def test_auc_with_a_tie_by_hand():
    assert auc(f32(0.8, 0.4, 0.3, 0.8), sample([1, 1, 0, 0])).value == 0.625


def test_gauc_by_hand_leaves_out_users_with_one_class():
    # user 0: 2 rows, AUC 1; user 1: 4 rows, AUC 0.5 (tie); user 2 has no click.
    score = f32(2, 1, 0, 0, 0, 0, 5)
    s = sample([1, 0, 1, 0, 1, 0, 0], user=[0, 0, 1, 1, 1, 1, 2])
    assert gauc(score, s).value == pytest.approx((2 * 1.0 + 4 * 0.5) / 6)


def test_logloss_and_normalized_entropy_by_hand():
    s = sample([1, 0])
    assert logloss(f32(0, 0), s).value == pytest.approx(np.log(2))
    assert normalized_entropy(f32(0, 0), s).value == pytest.approx(1.0)
    assert logloss(f32(1000, -1000), s).value == 0.0


def test_ece_by_hand():
    # bins of two: predicted 0.5, 0.5 observed 1.0 -> gap 0.5; predicted ~0, observed 0.
    points = calibration(f32(0, 0, -50, -50), sample([1, 1, 0, 0]), 2)
    assert ece(points) == pytest.approx(0.25)


def test_weighted_ece_by_hand():
    # bins of two. Predicted 0.5, observed (3 * 1 + 1 * 0) / 4 -> gap 0.25 of weight 4; predicted ~1, observed
    # 2 / (2 + 8) -> gap 0.8 of weight 10. A row of weight 0 counts in nothing.
    s = sample([1, 0, 1, 0, 0], weight=[3, 1, 2, 8, 0])
    points = calibration(f32(0, 0, 50, 50, 50), s, 2)
    assert [(p.predicted, p.observed, p.weight) for p in points] == [(0.5, 0.75, 4.0), (1.0, pytest.approx(0.2), 10.0)]
    assert ece(points) == pytest.approx((4 * 0.25 + 10 * 0.8) / 14)
    without = calibration(f32(0, 0, 50, 50, 90, 90), sample([1, 0, 1, 0, 1, 1], weight=[3, 1, 2, 8, 0, 0]), 3)
    assert len(without) == 2 and ece(without) == ece(points)


@pytest.mark.parametrize("weight", [0.5, 1.0, 4.0])
def test_equal_weights_give_exactly_what_rows_that_count_one_give(weight):
    rng = np.random.default_rng(5)
    score = np.round(rng.normal(size=3000), 1).astype(np.float32)
    user, label = rng.integers(0, 90, 3000), (rng.random(3000) < 0.3).astype(np.float32)
    found = measure(score, sample(label, user, weight=np.full(3000, weight)), (3,), 20)
    at, p = np.argsort(score, kind="stable"), 1 / (1 + np.exp(-score.astype(np.float64)))
    edges = np.unique(np.searchsorted(score[at], score[at][np.arange(0, 3000, 150)]))
    gaps = np.add.reduceat((p - label)[at], edges)
    assert found["ece"].value == pytest.approx(np.abs(gaps).sum() / 3000, abs=1e-14)
    assert found["auc"].value == pytest.approx(roc_auc_score(label, score), abs=1e-14)
    plain = measure(score, sample(label, user), (3,), 20)
    for name, one in plain.items():
        assert (found[name].value, found[name].bias) == (one.value, one.bias)
        assert found[name].standard_error == pytest.approx(one.standard_error, rel=1e-12, nan_ok=True)


def test_weighted_auc_agrees_with_scikit_learn():
    rng = np.random.default_rng(6)
    score, weight = np.round(rng.normal(size=2000), 1).astype(np.float32), rng.integers(0, 9, 2000)
    label = (rng.random(2000) < 1 / (1 + np.exp(-score + (weight > 4)))).astype(np.float32)
    found = auc(score, sample(label, weight=weight)).value
    assert found == pytest.approx(roc_auc_score(label, score, sample_weight=weight), abs=1e-12)
    assert abs(found - roc_auc_score(label, score)) > 0.005
    assert np.isnan(auc(score, sample(label, weight=np.where(label > 0, 0, weight))).value)


def test_a_log_that_weighs_nothing_has_no_calibration():
    found = measure(f32(1, 0, 2, 3), sample([1, 0, 1, 0], weight=[0, 0, 0, 0]), (1,), 2)
    assert np.isnan([found[name].value for name in ("auc", "logloss", "normalized_entropy", "ece")]).all()


def test_a_model_that_is_calibrated_on_down_sampled_negatives_is_not_held_back():
    """1 in 10 negatives is kept, with weight 10: by rows the mean label is some five times too high."""
    rng = np.random.default_rng(7)
    logit = rng.normal(-2.0, 1.0, 100_000).astype(np.float32)
    label = (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    kept = (label > 0) | (rng.random(len(logit)) < 0.1)
    s = sample(label[kept], np.arange(kept.sum()) // 8, weight=np.where(label[kept] > 0, 1, 10))
    found = evaluate({"served": logit[kept]}, s, EvaluateConfig()).metrics["served"]["ece"]
    assert found.value < 0.02 and calibrated("served ECE", found, 0.02).passed
    rows = evaluate({"served": logit[kept]}, sample(s.label, s.user), EvaluateConfig()).metrics["served"]["ece"]
    assert rows.low > 0.2


def test_ndcg_and_hit_rate_by_hand():
    lists = make_lists(f32(3, 2, 1, 1, 2, 3), np.array([0, 0, 0, 1, 1, 1]))
    label = f32(0, 1, 0, 1, 0, 0)
    values, has = ndcg(lists, label, 3)
    assert values.tolist() == pytest.approx([1 / np.log2(3), 1 / np.log2(4)]) and has.all()
    assert hit_rate(lists, label, 2)[0].tolist() == [1.0, 0.0]


def test_a_constant_score_earns_what_chance_earns():
    lists = make_lists(np.zeros(100, dtype=np.float32), np.zeros(100, dtype=np.int64))
    label = np.zeros(100, dtype=np.float32)
    label[0] = 1
    assert hit_rate(lists, label, 10)[0][0] == pytest.approx(0.10)
    two = label.copy()
    two[50] = 1
    assert hit_rate(lists, two, 10)[0][0] == pytest.approx(1 - (90 * 89) / (100 * 99))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=80))
def test_metrics_agree_with_scikit_learn(rows):
    score = np.array([r[0] for r in rows], dtype=np.float32)
    label = np.array([r[1] for r in rows], dtype=np.float32)
    s = sample(label)
    p = 1 / (1 + np.exp(-score.astype(np.float64)))
    assert logloss(score, s).value == pytest.approx(log_loss(label, p, labels=[0, 1]), abs=1e-9)
    if 0 < label.sum() < len(label):
        assert auc(score, s).value == pytest.approx(roc_auc_score(label, score), abs=1e-9)
        lists = make_lists(score, np.zeros(len(rows), dtype=np.int64))
        assert ndcg(lists, label, 10)[0][0] == pytest.approx(ndcg_score([label], [score], k=10), abs=1e-9)
    else:
        assert np.isnan(auc(score, s).value)


def simulated(rng, users=300, rows=8):
    user = np.repeat(np.arange(users), rows)
    taste = np.repeat(rng.normal(size=users), rows)
    truth = taste + rng.normal(size=len(user))
    label = (rng.random(len(user)) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return truth, sample(label, user=user, request=user)


def test_two_equally_good_models_differ_significantly_one_time_in_twenty():
    rng, hits, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        truth, s = simulated(rng)
        a, b = ((truth + rng.normal(size=len(truth))).astype(np.float32) for _ in range(2))
        found = difference(auc(a, s), auc(b, s), 0.95)
        hits += not found.low <= 0 <= found.high
    assert 0.02 < hits / runs < 0.09


@pytest.mark.parametrize("name", ["auc", "gauc", "logloss", "normalized_entropy", "ndcg@5"])
def test_standard_errors_match_a_bootstrap_over_users(name):
    rng = np.random.default_rng(2)
    truth, s = simulated(rng)
    score = (truth + rng.normal(size=len(truth))).astype(np.float32)
    analytic = measure(score, s, (5,), 10)[name].standard_error
    values = []
    for _ in range(200):
        rows = (rng.integers(300, size=300)[:, None] * 8 + np.arange(8)).ravel()
        clone = np.repeat(np.arange(300), 8)
        again = Sample(s.label[rows], s.weight[rows], clone, clone)
        values.append(measure(score[rows], again, (5,), 10)[name].value)
    assert analytic == pytest.approx(np.std(values), rel=0.2)


def test_interval_is_symmetric_and_95_percent():
    found = interval(0.5, 0.1, 0.95)
    assert (found.low, found.high) == pytest.approx((0.5 - 0.196, 0.5 + 0.196), abs=1e-3)


def test_small_slices_say_so_and_undefined_numbers_become_null():
    rng = np.random.default_rng(0)
    _, s = simulated(rng)
    score = rng.normal(size=len(s.label)).astype(np.float32)
    found = evaluate(
        {"a": score, "b": -score}, s, EvaluateConfig(), (("a", "b"),), {"tiny": s.user < 3, "all": s.user >= 0}
    )
    assert found.slices[0].auc == {} and found.slices[0].rows == 24
    assert found.slices[1].auc["a"].value == pytest.approx(found.metrics["a"]["auc"].value)
    one_class = evaluate({"a": score}, sample(np.ones(len(score))), EvaluateConfig())
    assert one_class.to_json()["metrics"]["a"]["auc"] == {"value": None, "low": None, "high": None}
    assert found.deltas["a - b"]["auc"].value == pytest.approx(2 * found.metrics["a"]["auc"].value - 1)
