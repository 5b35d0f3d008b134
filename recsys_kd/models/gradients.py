"""Gradients of embedding rows that cost less than the ones autograd makes: training a student is bound by memory."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_DENSE_ROWS = 256
"""A table of so few rows is in nearly every batch as a whole: a dense gradient costs less than sorting its rows."""


def is_sparse(table: Tensor) -> bool:
    """Return whether a table's gradient holds the rows of the batch alone (lazy Adam), not all of them."""
    return len(table) > _DENSE_ROWS


class _SideBySide(torch.autograd.Function):
    """First layer, sum and sum of squares of rows side by side, their gradients written in two passes over the rows.

    Training is bound by memory: what autograd makes of the same three lines reads and writes the rows ten times.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return W rows + b [B, first], and sums of rows and of their squares over the fields, [B, d + 1] each."""
        ctx.save_for_backward(rows, weight)
        squares = rows.new_zeros(len(rows), rows.shape[2])
        for row in rows.unbind(1):
            squares.addcmul_(row, row)
        return torch.addmm(bias, rows.flatten(1), weight.T), rows.sum(1), squares

    @staticmethod
    def backward(ctx: Any, hidden: Tensor, sums: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients for rows, weight and bias."""
        rows, weight = ctx.saved_tensors
        into = torch.addcmul(sums[:, None], rows, squares[:, None], value=2)
        into.flatten(1).addmm_(hidden, weight)
        return into, hidden.T @ rows.flatten(1), hidden.sum(0)


def side_by_side(rows: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what rows [B, fields, width] add up to, with gradients for all three arguments.

    weight [first, fields * width], bias [first]. Returns the first layer W rows + b [B, first], the rows' sum over the
    fields [B, width] and the sum of their squares [B, width].
    """
    out: tuple[Tensor, Tensor, Tensor] = _SideBySide.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    return out


def descend(loss: Tensor, by: Iterable[torch.optim.Optimizer]) -> None:
    """Take one step down the gradient of a loss."""
    for optimizer in by:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in by:
        optimizer.step()
