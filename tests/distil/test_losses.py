import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from recsys_kd.distil.calibration import IDENTITY, fit_platt
from recsys_kd.distil.losses import hard_bce, logit_mse, soft_bce

ONES = torch.ones(2)


def test_hard_bce_of_two_rows_by_hand():
    # logit 0: ln 2 whatever the label; logit ln 3, label 1: -ln 0.75.
    loss = hard_bce(torch.tensor([0.0, math.log(3)]), torch.tensor([0.0, 1.0]), ONES)
    assert float(loss) == pytest.approx((math.log(2) - math.log(0.75)) / 2, abs=1e-6)


def test_weights_choose_the_rows():
    loss = hard_bce(torch.tensor([0.0, 9.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
    assert float(loss) == pytest.approx(math.log(2), abs=1e-6)


def test_soft_bce_by_hand():
    # teacher p = 0.75, student p = 0.5: KL = 0.75 ln 1.5 + 0.25 ln 0.5.
    loss = soft_bce(torch.zeros(1), torch.tensor([math.log(3)]), torch.ones(1))
    assert float(loss) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=1, max_size=9), st.floats(0.5, 8))
def test_a_student_equal_to_its_teacher_has_zero_loss_and_gradient(logits, temperature):
    student = torch.tensor(logits, requires_grad=True)
    loss = soft_bce(student, torch.tensor(logits), torch.ones(len(logits)), temperature)
    loss.backward()
    assert abs(float(loss)) < 1e-5 and float(student.grad.abs().max()) < 1e-5
    assert float(logit_mse(torch.tensor(logits), torch.tensor(logits), torch.ones(len(logits)))) == 0.0


def test_no_known_teacher_row_means_no_loss():
    assert float(soft_bce(torch.ones(2), torch.zeros(2), torch.zeros(2))) == 0.0


def test_platt_finds_the_scaling_that_made_the_labels():
    rng = np.random.default_rng(0)
    logit = rng.normal(size=60_000).astype(np.float32) * 2
    label = (rng.random(60_000) < 1 / (1 + np.exp(-(0.6 * logit - 1.0)))).astype(np.float32)
    found = fit_platt(logit, label, np.ones_like(logit))
    assert found.slope == pytest.approx(0.6, abs=0.03) and found.offset == pytest.approx(-1.0, abs=0.04)


def test_platt_never_turns_the_ranking_round():
    logit = np.linspace(-3, 3, 100, dtype=np.float32)
    assert fit_platt(logit, (logit < 0).astype(np.float32), np.ones_like(logit)) == IDENTITY
    assert fit_platt(logit, np.ones_like(logit), np.ones_like(logit)) == IDENTITY


def test_platt_finds_its_way_from_far_off():
    """Trained on one click in five, tested on one in a hundred: whole Newton steps ran away and gave the identity."""
    rng = np.random.default_rng(0)
    logit = rng.normal(-4.5, 4.7, 260_000).astype(np.float32)
    label = (rng.random(len(logit)) < 1 / (1 + np.exp(-(0.5 * logit - 4.8)))).astype(np.float32)
    found = fit_platt(logit, label, np.ones_like(logit))
    oracle = LogisticRegression(C=1e12, tol=1e-12, solver="newton-cholesky").fit(logit[:, None], label)
    assert (found.slope, found.offset) == pytest.approx((oracle.coef_[0, 0], oracle.intercept_[0]), rel=1e-4)
    assert (1 / (1 + np.exp(-found(logit)))).mean() == pytest.approx(label.mean(), rel=1e-5)
