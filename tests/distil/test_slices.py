import numpy as np
import pytest

from recsys_kd.distil.calibration import Platt, fit_platt, fit_towards, information
from recsys_kd.distil.slices import calibrate_slices


def log(rows, seed=0, turn=()):
    """Return logits, and labels that follow them but in the slices of `turn`: slice -> (slope, offset)."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, sum(rows)).astype(np.float32)
    slices = np.repeat(np.arange(len(rows)), rows)
    truth = logit.astype(np.float64)
    for s, (slope, offset) in dict(turn).items():
        truth[slices == s] = slope * truth[slices == s] + offset
    label = (rng.random(len(logit)) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return logit, label, np.ones(len(logit), np.float32), slices, truth


def test_a_slice_where_the_teacher_is_wrong_is_put_right_and_others_are_left():
    logit, label, weight, slices, truth = log([60_000, 60_000], turn={1: (0.5, -1.0)})
    found = calibrate_slices(logit, label, weight, slices)
    assert np.abs(found - truth).mean() < 0.05
    assert np.abs(fit_platt(logit, label, weight)(logit) - truth).mean() > 0.3


def test_a_slice_of_a_few_rows_keeps_what_all_rows_say():
    logit, label, weight, slices, _ = log([50_000, 20])
    label[slices == 1] = 1.0  # one class: on its own there is no best slope
    overall = fit_platt(logit, label, weight)(logit)
    found = calibrate_slices(logit, label, weight, slices)
    assert 0.0 < (found - overall)[slices == 1].mean() < 0.2
    far = calibrate_slices(logit, label, weight, slices, prior=1e9)
    assert far == pytest.approx(overall, abs=1e-4)


def test_half_of_what_a_slice_says_is_kept_where_it_has_as_many_rows_as_the_prior():
    # About the optimum the loss is a parabola, so the found point is the mean of both centres by their rows.
    logit, label, weight, _, _ = log([40_000], turn={0: (1.0, 0.2)})
    alone = fit_platt(logit, label, weight)
    centre = Platt(alone.slope, alone.offset - 0.1)
    found = fit_towards(logit, label, weight, centre, information(alone, logit, weight))
    assert found.offset == pytest.approx((alone.offset + centre.offset) / 2, abs=0.003)
    assert found.slope == pytest.approx(alone.slope, abs=0.003)


def test_without_a_prior_and_with_no_rows_the_ends_are_met():
    logit, label, weight, _, _ = log([20_000], turn={0: (0.7, 0.3)})
    free = fit_towards(logit, label, weight, Platt(1.0, 0.0), np.zeros((2, 2)))
    plain = fit_platt(logit, label, weight)
    assert (free.slope, free.offset) == (plain.slope, plain.offset)
    assert fit_towards(logit, label, 0 * weight, Platt(0.9, 0.1), np.eye(2)) == Platt(0.9, 0.1)


def test_rows_of_weight_zero_fit_nothing_and_are_calibrated_all_the_same():
    logit, label, weight, slices, _ = log([5000, 5000], turn={1: (1.0, 1.0)})
    unknown = np.arange(len(logit)) % 2 == 0
    spoilt = np.where(unknown, 1 - label, label)
    found = calibrate_slices(logit, spoilt, np.where(unknown, 0, weight).astype(np.float32), slices)
    kept = calibrate_slices(logit[~unknown], label[~unknown], weight[~unknown], slices[~unknown])
    assert found[~unknown] == pytest.approx(kept, abs=1e-5) and np.isfinite(found).all()
    assert np.isnan(calibrate_slices(np.full(3, np.nan, np.float32), label[:3], 0 * weight[:3], slices[:3])).all()
