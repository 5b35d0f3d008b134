"""A model's scores as metrics take them: a logit per row, and a 4-byte key that orders rows as they were scored.

The order is taken from what was logged, before it becomes a logit: probabilities that differ stay apart, also where
their logits are cut (0 and 1) or too close for float64. Sorting 4-byte keys takes half the memory of float64 scores.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32] | NDArray[np.float64]
Order = NDArray[np.uint32]


@dataclass(frozen=True)
class Scores:
    """Arrays [N]: logits, float32 or float64; and unsigned integers that rise with the score, equal where it is."""

    logit: Values
    order: Order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, rows: slice | NDArray[Any]) -> "Scores":
        return Scores(self.logit[rows], self.order[rows])


def scores_of(score: "Scores | Values") -> Scores:
    """Return logits [N] with their order; what has one is returned as it is."""
    if isinstance(score, Scores):
        return score
    values = narrow(score)
    return Scores(values, order_of(values))


def narrow(values: NDArray[Any]) -> Values:
    """Return numbers as float32 where it holds every one of them exactly, else as float64."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        short = values.astype(np.float32)
    return short if np.array_equal(short, values, equal_nan=True) else values.astype(np.float64, copy=False)


def order_of(values: Values) -> Order:
    """Return unsigned integers [N] that sort as the values do: the bits of float32, the ranks of float64."""
    return float_bits(values.astype(np.float32, copy=False)) if values.dtype == np.float32 else _ranks(values)


def float_bits(values: NDArray[np.float32]) -> Order:
    """Return the bits of float32 values, turned so that they sort as the values do; 0 and -0 are equal."""
    key = (values + np.float32(0.0)).view(np.uint32)
    key ^= np.where(key >> np.uint32(31), np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return key


def _ranks(values: Values) -> Order:
    order = np.argsort(values)
    ranked = values[order]
    new = np.ones(len(values), dtype=bool)
    np.not_equal(ranked[1:], ranked[:-1], out=new[1:])
    del ranked
    out = np.empty(len(values), dtype=np.uint32)
    out[order] = np.cumsum(new, dtype=np.uint32) - np.uint32(1)
    return out
