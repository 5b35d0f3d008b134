"""Sample weights count in everything that is fitted or chosen by."""

import numpy as np
import pytest
import torch

from recsys_kd.distil.calibration import IDENTITY, fit_platt
from recsys_kd.distil.loop import auc, validation_metrics


def test_calibration_of_down_sampled_negatives_finds_the_true_rate():
    """1 in 10 negatives is kept, with weight 10: the mean probability must be that of the whole log."""
    rng = np.random.default_rng(0)
    logit = rng.normal(-2.0, 1.0, 200_000).astype(np.float32)
    label = (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    kept = (label > 0) | (rng.random(len(logit)) < 0.1)
    weight = np.where(label > 0, 1.0, 10.0).astype(np.float32)[kept]
    fitted = fit_platt(logit[kept], label[kept], weight)
    assert (fitted.slope, fitted.offset) == pytest.approx((1.0, 0.0), abs=0.05)
    plain = fit_platt(logit[kept], label[kept], np.ones(kept.sum(), dtype=np.float32))
    assert plain.offset == pytest.approx(np.log(10), abs=0.1)  # what weights put right


def test_rows_of_weight_zero_do_not_calibrate():
    x, one = np.array([0.0, 1.0, 2.0], dtype=np.float32), np.array([1.0, 1.0, 0.0], dtype=np.float32)
    assert fit_platt(x, np.array([1.0, 1.0, 0.0], dtype=np.float32), one) == IDENTITY


def test_weighted_auc_by_hand():
    # positives 0.8 (weight 2) and 0.3 (1); negatives 0.5 (3) and 0.3 (1).
    # pairs won: 0.8 over both 2*4, 0.3 ties 0.3 by half 1*0.5; of 3*4.
    score, label = torch.tensor([0.8, 0.3, 0.5, 0.3]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert auc(score, label, torch.tensor([2.0, 1.0, 3.0, 1.0])) == pytest.approx(8.5 / 12)
    assert auc(score, label) == pytest.approx(2.5 / 4)
    assert np.isnan(auc(score, label, torch.tensor([1.0, 1.0, 0.0, 0.0])))


class Fixed:
    def __init__(self, schema):
        self.schema = schema

    def score(self, batch):
        return np.where(batch.label > 0.5, 1.0, -2.0).astype(np.float32)


def test_the_validation_loss_is_weighted(dataset, monkeypatch):
    import dataclasses

    class Weighted:
        schema = dataset.schema

        def batch(self, rows):
            given = dataset.batch(rows)
            return dataclasses.replace(given, weight=np.where(given.label > 0.5, 4.0, 1.0).astype(np.float32))

    rows = dataset.splits["validation"]
    label = np.asarray(dataset.column("label")[rows.start : rows.stop])
    ups, downs = (label > 0.5).sum(), (label <= 0.5).sum()
    cost_up, cost_down = np.log1p(np.exp(-1.0)), np.log1p(np.exp(-2.0))
    expected = (4 * ups * cost_up + downs * cost_down) / (4 * ups + downs)
    loss, area = validation_metrics(Fixed(dataset.schema), Weighted(), rows)
    assert loss == pytest.approx(expected) and area == 1.0
