"""Rows side by side: their sums, and gradients that autograd's own agree with."""

import torch
from torch import Tensor, nn

from recsys_kd.models.gradients import descend, is_sparse, side_by_side


def _plain(rows: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return rows.flatten(1) @ weight.T + bias, rows.sum(1), rows.square().sum(1)


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    shapes = ((5, 3, 4), (6, 12), (6,))
    rows, weight, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return rows, weight, bias


def test_two_rows_of_two_columns_add_up_as_by_hand() -> None:
    rows = torch.tensor([[[1.0, 2.0], [3.0, -4.0]]])
    hidden, sums, squares = side_by_side(rows, torch.tensor([[1.0, 0.0, 10.0, 100.0]]), torch.tensor([0.5]))
    assert hidden.tolist() == [[1.0 + 30.0 - 400.0 + 0.5]]
    assert sums.tolist() == [[4.0, -2.0]]
    assert squares.tolist() == [[10.0, 20.0]]


def test_gradients_agree_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(side_by_side, _inputs())


def test_gradients_are_those_that_autograd_makes() -> None:
    ours, theirs = _inputs(), _inputs()
    for function, inputs in ((side_by_side, ours), (_plain, theirs)):
        hidden, sums, squares = function(*inputs)
        (hidden.sin().sum() + (sums * squares).sum()).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-12, atol=1e-12)


def test_no_fields_at_all_leave_the_bias() -> None:
    hidden, sums, squares = side_by_side(torch.zeros(2, 0, 3), torch.zeros(2, 0), torch.tensor([1.0, 2.0]))
    assert hidden.tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert sums.tolist() == squares.tolist() == [[0.0, 0.0, 0.0]] * 2


def test_tables_of_up_to_256_rows_have_dense_gradients() -> None:
    assert [is_sparse(torch.zeros(rows, 2)) for rows in (1, 256, 257)] == [False, False, True]


def test_descend_forgets_the_gradients_of_the_step_before() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    for _ in range(2):
        descend((2 * weight).sum(), [optimizer])
    assert weight.tolist() == [1.0 - 2 * 0.5 * 2]
