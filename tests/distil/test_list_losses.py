import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from recsys_kd.distil.list_losses import listwise, pairwise, relaxed_ranking
from recsys_kd.distil.lists import Lists

LOSSES = [listwise, pairwise, relaxed_ranking]
LN3 = math.log(3)


def lists(request, weight=None):
    weight = torch.ones(len(request)) if weight is None else torch.tensor(weight)
    return Lists.of(np.array(request), weight)


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_listwise_by_hand():
    # Probabilities 0.75 and 0.5 are shares 0.6 and 0.4; the student's equal ones are halves.
    loss = listwise(torch.zeros(2), torch.tensor([LN3, 0.0]), lists([4, 4]))
    assert float(loss) == pytest.approx(kl([0.6, 0.4], [0.5, 0.5]), abs=1e-6)


def test_weights_are_copies_of_a_row_in_its_list():
    # 1 * 0.75 to 3 * 0.5 is 1 to 2; 1 * 0.5 to 3 * 0.5 is 1 to 3.
    loss = listwise(torch.zeros(2), torch.tensor([LN3, 0.0]), lists([4, 4], [1.0, 3.0]))
    assert float(loss) == pytest.approx(kl([1 / 3, 2 / 3], [1 / 4, 3 / 4]), abs=1e-6)


def test_pairwise_by_hand():
    # One pair: the teacher puts the first before the second with chance 0.75, the student with 0.5.
    one = pairwise(torch.zeros(2), torch.tensor([LN3, 0.0]), lists([0, 0]))
    assert float(one) == pytest.approx(kl([0.75, 0.25], [0.5, 0.5]), abs=1e-6)
    # Three rows: two such pairs, and one that the teacher leaves open; weights 1, 1, 2 weigh them 1, 2, 2.
    three = pairwise(torch.zeros(3), torch.tensor([LN3, 0.0, 0.0]), lists([0, 0, 0], [1.0, 1.0, 2.0]))
    assert float(three) == pytest.approx(float(one) * 3 / 5, abs=1e-6)


def test_relaxed_ranking_by_hand():
    # First place: the teacher's best has 2 of 4, all others together 2; the student gives it 1 of 3.
    teacher = torch.tensor([math.log(2), 0.0, 0.0])
    loss = relaxed_ranking(torch.zeros(3), teacher, lists([0, 0, 0]), top=1)
    assert float(loss) == pytest.approx(kl([1 / 2, 1 / 2], [1 / 3, 2 / 3]), abs=1e-6)
    # Second place: 1 of 2 for both.
    assert float(relaxed_ranking(torch.zeros(3), teacher, lists([0, 0, 0]), top=2)) == pytest.approx(
        kl([1 / 2, 1 / 4, 1 / 4], [1 / 3, 1 / 3, 1 / 3]), abs=1e-6
    )


def test_relaxed_ranking_does_not_ask_for_the_order_of_the_rest():
    teacher = torch.tensor([3.0, 2.0, 0.0, -1.0, -2.0])
    one, other = torch.tensor([1.0, 0.0, 0.5, 0.2, -1.0]), torch.tensor([1.0, 0.0, -1.0, 0.5, 0.2])
    first, second = (float(relaxed_ranking(s, teacher, lists([0] * 5), top=2)) for s in (one, other))
    assert first == pytest.approx(second, abs=1e-6) and first > 0.1


def test_relaxed_ranking_of_a_certain_teacher_is_the_published_loss():
    """DE-RRD: minus the logarithm of the chance that the student lists the teacher's first rows in their order."""
    student = torch.tensor([0.3, -0.2, 0.9, 0.1])
    loss = relaxed_ranking(student, torch.tensor([80.0, 40.0, 0.0, 0.0]), lists([0] * 4), top=2)
    s = [math.exp(x) for x in student.tolist()]
    wanted = -math.log(s[0] / sum(s)) - math.log(s[1] / sum(s[1:]))
    assert float(loss) == pytest.approx(wanted, abs=1e-5)


def test_listwise_leaves_the_level_to_the_labels_and_a_softmax_would_not():
    """Half of all probabilities is the same list; a softmax of the logits would call it another."""
    teacher = torch.tensor([2.0, 0.0, -1.0])
    halved = torch.logit(torch.sigmoid(teacher) / 2)
    assert float(listwise(halved, teacher, lists([0] * 3))) == pytest.approx(0.0, abs=1e-6)
    assert kl(teacher.softmax(0).tolist(), halved.softmax(0).tolist()) > 0.01


def test_a_request_counts_by_its_mean_weight_and_one_of_a_single_row_not_at_all():
    student, teacher = torch.zeros(5), torch.tensor([LN3, 0.0, 1.0, 1.0, 7.0])
    one = kl([0.6, 0.4], [0.5, 0.5])  # the second list is equal in both: 0
    found = listwise(student, teacher, lists([0, 0, 1, 1, 2], [1.0, 1.0, 3.0, 3.0, 9.0]))
    assert float(found) == pytest.approx(one * 1 / 4, abs=1e-6)
    assert float(listwise(student[:1], teacher[:1], lists([3]))) == 0.0


BATCH = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-6, 6), min_size=n, max_size=n),
        st.lists(st.floats(-6, 6), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=n, max_size=n),
    )
)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=40, deadline=None)
@given(BATCH, st.floats(0.5, 4))
def test_a_student_equal_to_its_teacher_has_zero_loss_and_gradient_and_no_other_has_less(loss, batch, temperature):
    teacher, other, request, weight = batch
    mine, t = lists(request, weight), torch.tensor(teacher, dtype=torch.float64)
    student = t.clone().requires_grad_()
    at = loss(student, t, mine, temperature=temperature)
    at.backward()
    assert abs(float(at.detach())) < 1e-9 and float(student.grad.abs().max()) < 1e-9
    assert float(loss(torch.tensor(other, dtype=torch.float64), t, mine, temperature=temperature)) > -1e-9


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_finite_differences(loss):
    rng = np.random.default_rng(1)
    teacher, request = torch.from_numpy(rng.normal(size=9)), [0, 1, 1, 0, 2, 1, 0, 0, 1]
    mine = lists(request, [1.0, 2.0, 0.0, 1.0, 1.0, 0.5, 1.0, 3.0, 1.0])
    student = torch.from_numpy(rng.normal(size=9)).requires_grad_()
    assert gradcheck(lambda s: loss(s, teacher, mine, temperature=1.7), (student,))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_rows_and_the_numbers_of_requests_do_not_matter(loss):
    rng = np.random.default_rng(2)
    student, teacher = (rng.normal(size=20).astype(np.float32) for _ in range(2))
    request, weight = rng.integers(0, 4, 20), rng.uniform(0.5, 2, 20).astype(np.float32)
    order = rng.permutation(20)
    value = [
        float(loss(torch.from_numpy(student[o]), torch.from_numpy(teacher[o]), lists(r[o], weight[o].tolist())))
        for o, r in ((np.arange(20), request), (order, 10**15 - 7 * request))
    ]
    assert value[0] == pytest.approx(value[1], rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_without_a_teacher_neither_count_nor_move(loss):
    weight = [1.0, 1.0, 0.0, 1.0]
    values = []
    for absent in (-50.0, 50.0):
        student = torch.tensor([0.1, -0.3, 2.0, 0.4], requires_grad=True)
        found = loss(student, torch.tensor([1.0, 0.0, absent, -1.0]), lists([0] * 4, weight))
        found.backward()
        assert student.grad[2] == 0.0
        values.append(float(found.detach()))
    assert values[0] == values[1] > 0.01
