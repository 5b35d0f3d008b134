"""Rows of a batch as lists, one per request: what losses over whole lists are made of.

A row of weight w stands for w equal rows of its list, and a list counts by the mean weight of its rows. Rows of weight
0 (the teacher never scored them) are not there, and a list of fewer than two rows teaches no order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOWHERE = -1e30
"""The logarithm of no mass at all, finite so that a difference of two of them is 0."""


def log_sums(score: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the logarithm of the sum of exp(score) [N] per group [groups]; NOWHERE for a group without rows."""
    top = torch.full((groups,), NOWHERE, dtype=score.dtype)
    top = top.scatter_reduce(0, group, score.detach(), "amax")
    total = torch.zeros(groups, dtype=score.dtype).index_add(0, group, (score - top[group]).exp())
    return top + total.clamp_min(1e-30).log()


@dataclass(frozen=True)
class Lists:
    """code: int64 [B], 0 .. count - 1, the list of every row. weight: [B]."""

    code: Tensor
    weight: Tensor
    count: int

    @staticmethod
    def of(request: NDArray[np.int64], weight: Tensor) -> "Lists":
        """Return a batch's lists; `request` is any code [B]."""
        known, code = np.unique(request, return_inverse=True)
        return Lists(torch.from_numpy(code.astype(np.int64)), weight, len(known))

    def per_list(self, values: Tensor) -> Tensor:
        """Return the sum of row values [B] of every list [count]."""
        return torch.zeros(self.count, dtype=values.dtype).index_add(0, self.code, values)

    def mass(self, score: Tensor) -> Tensor:
        """Return score + log weight [B]: the logarithm of what a row weighs in a choice; NOWHERE for weight 0."""
        return torch.where(self.weight > 0, score + self.weight.clamp_min(1e-30).log(), NOWHERE)

    def log_softmax(self, score: Tensor) -> Tensor:
        """Return the logarithm of every row's share of its list [B], shares in proportion to weight * exp(score)."""
        mass = self.mass(score)
        return mass - log_sums(mass, self.code, self.count)[self.code]

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted mean over lists of two rows or more of values per list [count]; 0 where there is none."""
        rows = self.per_list((self.weight > 0).to(values.dtype))
        weight = torch.where(rows > 1, self.per_list(self.weight.to(values.dtype)) / rows.clamp_min(1), 0.0)
        return (values * weight).sum() / weight.sum().clamp_min(1e-12)

    def places(self, score: Tensor) -> Tensor:
        """Return every row's place in its list [B], from 0 for the highest score; rows of weight 0 come last."""
        code, absent = self.code.numpy(), (self.weight <= 0).numpy()
        order = np.lexsort((-score.detach().numpy(), absent, code))
        starts = np.searchsorted(code[order], np.arange(self.count))
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order)) - starts[code[order]]
        return torch.from_numpy(place)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Return all pairs of two rows of one list [pairs] each, every pair once: n (n - 1) / 2 of a list of n."""
        code = self.code.numpy()
        order = np.argsort(code, kind="stable")
        ends = np.searchsorted(code[order], np.arange(self.count), side="right")[code[order]]
        after = ends - np.arange(len(order)) - 1
        first = np.repeat(np.arange(len(order)), after)
        second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(after) - after, after)
        return torch.from_numpy(order[first]), torch.from_numpy(order[second])
