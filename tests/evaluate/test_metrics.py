import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from recsys_kd.evaluate.evaluation import difference, evaluate, interval
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
