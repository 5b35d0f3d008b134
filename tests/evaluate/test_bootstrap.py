import dataclasses
import os

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recsys_kd.evaluate.bootstrap import replicate_totals, replicate_values, weight_table, weights_of
from recsys_kd.evaluate.measure import measure
from recsys_kd.evaluate.sample import Sample
from recsys_kd.evaluate.sums import ratio


def simulated(users=150, rows=6, seed=0):
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows)
    logit = rng.normal(size=len(user)) + np.repeat(rng.normal(size=users), rows)
    label = (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    score = (logit + rng.normal(size=len(user))).astype(np.float32)
    return score, Sample(label, np.ones(len(user), np.float32), user, np.arange(len(user)) // 3)


def test_weights_are_poisson_with_mean_and_variance_exactly_one():
    table = weight_table()
    assert len(table) == 65_536 and table.mean() == 1.0 and (table**2).mean() == 2.0
    assert (table == 0).mean() == pytest.approx(np.exp(-1), abs=1e-4)
    assert (table == 3).mean() == pytest.approx(np.exp(-1) / 6, abs=1e-4)


def test_totals_are_exact_sums_and_the_same_with_any_number_of_threads(monkeypatch):
    rng = np.random.default_rng(0)
    found = ratio(rng.normal(size=5000) * 1e-7, rng.random(5000) * 1e9)
    once = replicate_totals([found.sums], 50, 7)[0]
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert np.array_equal(replicate_totals([found.sums], 50, 7)[0], once)
    assert not np.array_equal(replicate_totals([found.sums], 50, 8)[0], once)
    weights = np.concatenate([weights_of(7, b, min(1024, 5000 - 1024 * b), 50) for b in range(5)])
    plain = weights.T @ found.sums.columns
    assert once == pytest.approx(plain, rel=1e-9, abs=1e-12 * np.abs(found.sums.columns).sum())


@pytest.mark.parametrize("name", ["gauc", "logloss", "normalized_entropy", "ndcg@3", "mrr", "hit_rate@2"])
def test_a_replicate_is_the_metric_of_the_log_with_every_user_repeated(name):
    score, sample = simulated()
    ks = (2, 3)
    values = replicate_values([measure(score, sample, ks, 10)[name].sums], 8, 7)[0]
    weights = weights_of(7, 0, 150, 8).astype(int)
    for r in range(8):
        rows = np.concatenate([np.flatnonzero(sample.user == u) for u in range(150) for _ in range(weights[u, r])])
        copy = np.concatenate([np.full(6, (u, c)[0] * 20 + c) for u in range(150) for c in range(weights[u, r])])
        again = Sample(sample.label[rows], sample.weight[rows], copy, copy * 1000 + sample.request[rows])
        assert values[r] == pytest.approx(measure(score[rows], again, ks, 10)[name].value, abs=1e-9)


def test_auc_replicates_differ_from_measuring_again_by_less_than_a_twentieth_of_their_spread():
    score, sample = simulated(users=800)
    values = replicate_values([measure(score, sample, (2,), 10)["auc"].sums], 20, 7)[0]
    weights = weights_of(7, 0, 800, 20).astype(int)
    exact = []
    for r in range(20):
        rows = np.repeat(np.arange(len(score)), weights[sample.user, r])
        exact.append(measure(score[rows], sample.where(rows), (2,), 10)["auc"].value)
    assert np.abs(values - exact).max() < np.std(exact) / 10
    assert np.abs(values - exact).mean() < np.std(exact) / 20


def weighted(users, seed=0):
    """Return a simulated log whose rows weigh 0 to 4, clicks less than others."""
    score, sample = simulated(users, seed=seed)
    weight = np.random.default_rng(1).integers(0, 5, len(score)) / (1 + sample.label)
    return score, dataclasses.replace(sample, weight=weight.astype(np.float32))


def test_a_replicate_of_weighted_rows_is_their_ece_with_every_user_repeated():
    score, sample = weighted(150)
    values = replicate_values([measure(score, sample, (3,), 10)["ece"].sums], 8, 7)[0]
    at, p = np.argsort(score, kind="stable"), 1 / (1 + np.exp(-score.astype(np.float64)))
    for r, times in enumerate(weights_of(7, 0, 150, 8).T):
        each = (times[sample.user] * sample.weight).astype(np.float64)
        gaps = np.add.reduceat((each * (p - sample.label))[at], np.arange(0, 900, 90))  # bins of the whole sample
        assert values[r] == pytest.approx(np.abs(gaps).sum() / each.sum(), abs=1e-9)


def test_replicates_of_weighted_auc_are_near_the_auc_of_the_log_with_every_user_repeated():
    score, sample = weighted(800)
    values = replicate_values([measure(score, sample, (2,), 10)["auc"].sums], 20, 7)[0]
    repeated = (sample.weight * weights_of(7, 0, 800, 20)[sample.user].T).astype(np.float32)
    exact = [roc_auc_score(sample.label, score, sample_weight=each) for each in repeated]
    assert np.abs(values - exact).max() < np.std(exact) / 10


@pytest.mark.parametrize("name", ["auc", "logloss", "normalized_entropy", "ece"])
def test_bootstrap_and_delta_method_agree_on_weighted_rows(name):
    score, sample = weighted(600, seed=3)
    found = measure(score * 2, sample, (3,), 5)[name]
    values = replicate_values([found.sums], 2000, 7)[0]
    assert values.std() == pytest.approx(found.standard_error, rel=0.07)


@pytest.mark.parametrize("name", ["auc", "gauc", "logloss", "normalized_entropy", "ndcg@3", "mrr"])
def test_bootstrap_and_delta_method_agree(name):
    score, sample = simulated(users=600, seed=3)
    found = measure(score, sample, (3,), 10)[name]
    values = replicate_values([found.sums], 2000, 7)[0]
    assert values.std() == pytest.approx(found.standard_error, rel=0.07)
    assert values.mean() == pytest.approx(found.value, abs=4 * found.standard_error / np.sqrt(2000) + 1e-3)
