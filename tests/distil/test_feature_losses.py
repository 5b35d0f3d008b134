import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from recsys_kd.distil.feature_losses import BLOCK, contrastive, hint


def test_hint_by_hand():
    # Rows (1 - 0)^2, (0 - 2)^2 and 0, 0: means 2.5 and 0, weighted 3 to 1.
    student, teacher = torch.tensor([[1.0, 0.0], [4.0, 4.0]]), torch.tensor([[0.0, 2.0], [4.0, 4.0]])
    assert float(hint(student, teacher, torch.tensor([3.0, 1.0]))) == pytest.approx(2.5 * 3 / 4)


def test_contrastive_by_hand():
    # The teacher's rows are at right angles, the student's second lies with the first: shares e : 1 against 1 : e.
    teacher, student = torch.eye(2), torch.tensor([[5.0, 0.0], [2.0, 0.0]])
    loss = contrastive(student, teacher, torch.ones(2), temperature=1.0)
    assert float(loss) == pytest.approx((math.e - 1) / (math.e + 1) / 2, abs=1e-6)


def test_contrastive_of_a_teacher_whose_rows_are_far_apart_is_info_nce():
    rng = np.random.default_rng(0)
    student, teacher = torch.from_numpy(rng.normal(size=(6, 6))), torch.eye(6, dtype=torch.float64)
    cosine = normalize(student, dim=1) @ teacher.T
    wanted = -(cosine / 0.05).log_softmax(1).diagonal().mean()
    found = contrastive(student, teacher, torch.ones(6), temperature=0.05)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_negatives_are_those_of_a_block():
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.normal(size=(BLOCK + 40, 4))) for _ in range(2))
    parts = [
        contrastive(student[p], teacher[p], torch.ones(n)) * n
        for p, n in ((slice(BLOCK), BLOCK), (slice(BLOCK, None), 40))
    ]
    assert float(contrastive(student, teacher, torch.ones(BLOCK + 40))) == pytest.approx(
        float(sum(parts)) / (BLOCK + 40)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1000), st.sampled_from([0.05, 0.1, 1.0]))
def test_a_student_equal_to_its_teacher_has_zero_loss_and_gradient_and_no_other_has_less(rows, seed, temperature):
    rng = np.random.default_rng(seed)
    teacher, other = (torch.from_numpy(rng.normal(size=(rows, 3))) for _ in range(2))
    weight = torch.from_numpy(rng.choice([0.0, 0.5, 2.0], rows))
    for loss in (hint, lambda s, t, w: contrastive(s, t, w, temperature)):
        student = teacher.clone().requires_grad_()
        at = loss(student, teacher, weight)
        at.backward()
        assert abs(float(at.detach())) < 1e-9 and float(student.grad.abs().max()) < 1e-9
        assert float(loss(other, teacher, weight)) > -1e-9


@pytest.mark.parametrize("loss", [hint, contrastive])
def test_the_gradient_is_that_of_finite_differences(loss):
    rng = np.random.default_rng(1)
    student, teacher = (torch.from_numpy(rng.normal(size=(7, 3))) for _ in range(2))
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    assert gradcheck(lambda s: loss(s, teacher, weight), (student.requires_grad_(),))


@pytest.mark.parametrize("loss", [hint, contrastive])
def test_rows_of_weight_zero_are_nobodys_negatives_and_do_not_move(loss):
    rng = np.random.default_rng(3)
    teacher, start = (torch.from_numpy(rng.normal(size=(4, 3))) for _ in range(2))
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0])
    values = []
    for scale in (1.0, -9.0):
        student, others = start.clone().requires_grad_(), teacher.clone()
        others[2] *= scale
        found = loss(student, others, weight)
        found.backward()
        assert (student.grad[2] == 0).all()
        values.append(float(found.detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-12) and values[0] > 0.01
