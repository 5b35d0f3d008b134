"""A gate finds out who is to be believed about what, and is the mean where nobody is better."""

import numpy as np
import pytest

from recsys_kd.distil.calibration import IDENTITY
from recsys_kd.distil.mixing import Gate, fit_gate


def loss(logit, label):
    return float(np.mean(np.logaddexp(0, logit) - label * logit))


@pytest.fixture
def halves():
    """Two members on 20,000 rows: one knows the chance of likely clicks, one that of others; else they guess."""
    rng = np.random.default_rng(3)
    truth = rng.normal(scale=2.0, size=20_000)
    noisy = rng.normal(size=(2, 20_000))
    z = np.stack([np.where(truth > 0, truth, noisy[0]), np.where(truth > 0, noisy[1], truth)], axis=1)
    label = (rng.random(20_000) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return z.astype(np.float32), label, truth > 0


def test_weights_by_hand():
    # A [1, z] = (0 + 1 * ln 3, 0): the first counts e^{ln 3} = 3 parts of 4, so 0.75 * ln 3 + 0.25 * 0.
    gate = Gate(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), IDENTITY)
    z = np.array([[np.log(3), 0.0]], dtype=np.float32)
    assert gate.weights(z)[0] == pytest.approx([0.75, 0.25])
    assert gate(z)[0] == pytest.approx(0.75 * np.log(3))


def test_the_gate_beats_the_mean_and_either_member_on_rows_it_was_not_fitted_to(halves):
    z, label, _ = halves
    fit, later = slice(0, 10_000), slice(10_000, None)
    gate = fit_gate(z[fit], label[fit], np.ones(10_000, dtype=np.float32))
    mean = gate.centre(z.mean(axis=1))
    others = [loss(m[later], label[later]) for m in (mean, z[:, 0], z[:, 1])]
    assert loss(gate(z[later]), label[later]) < min(others) - 0.005


def test_without_rows_or_with_a_heavy_prior_it_is_the_mean(halves):
    z, label, _ = halves
    nothing = fit_gate(z, label, np.zeros(len(z), dtype=np.float32))
    assert nothing(z) == pytest.approx(z.mean(axis=1), abs=1e-5)
    heavy = fit_gate(z, label, np.ones(len(z), dtype=np.float32), prior=1e12)
    assert heavy.weights(z) == pytest.approx(0.5, abs=1e-4)


def test_members_that_agree_stay_one_teacher():
    rng = np.random.default_rng(0)
    one = rng.normal(size=5000).astype(np.float32)
    label = (rng.random(5000) < 1 / (1 + np.exp(-one))).astype(np.float32)
    gate = fit_gate(np.stack([one, one], axis=1), label, np.ones(5000, dtype=np.float32))
    assert gate(np.stack([one, one], axis=1)) == pytest.approx(gate.centre(one), abs=1e-5)


def test_rows_of_no_weight_teach_it_nothing(halves):
    z, label, high = halves
    weight = high.astype(np.float32)
    garbage = np.where(high, label, 1 - label)
    plain, spoilt = (fit_gate(z, y, weight).matrix for y in (label, garbage))
    assert np.array_equal(plain, spoilt)
