"""Position bias: how likely each place is looked at, estimated from a log, and clicks corrected by it.

Model: a click's chance is examination[position] * attraction[item]. Items seen in several places tell both apart; the
Poisson likelihood's maximum is found by turns (iterative proportional fitting). Source of the correction: Joachims et
al. 2017, "Unbiased learning-to-rank with biased feedback".
"""

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError

Floats = NDArray[np.float64]
ROUNDS, SMALLEST = 200, 0.02


class UnseenPosition(InputError):
    """A position has no clicks, so how often it is looked at can't be told."""


def examination_of(position: NDArray[np.int64], item: NDArray[np.int64], click: NDArray[np.bool_]) -> Floats:
    """Return the chance that each position is looked at, relative to position 0 [positions]. Raises: UnseenPosition."""
    positions, items = int(position.max()) + 1, int(item.max()) + 1
    cell = position * items + item
    shown = np.bincount(cell, minlength=positions * items).reshape(positions, items).astype(np.float64)
    clicks_at = np.bincount(position, weights=click, minlength=positions)
    clicks_of = np.bincount(item, weights=click, minlength=items)
    dark = np.flatnonzero(clicks_at == 0)
    if len(dark):
        raise UnseenPosition(
            f"position: no click at position {dark[0]} in {int(shown[dark[0]].sum()):,} rows, so it can't be corrected "
            "for; give a longer log, or leave the deepest positions out"
        )
    look = clicks_at / np.maximum(shown.sum(axis=1), 1.0)
    for _ in range(ROUNDS):
        attraction = clicks_of / np.maximum(look @ shown, 1e-300)
        before, look = look, clicks_at / np.maximum(shown @ attraction, 1e-300)
        look = look / look[0]
        if np.abs(look - before / before[0]).max() < 1e-10:
            break
    return np.asarray(look, dtype=np.float64)


def corrected_gain(
    position: NDArray[np.int64], item: NDArray[np.int64], label: NDArray[np.float32]
) -> tuple[NDArray[np.float32], Floats]:
    """Return label / examination[position] [N], and the examination; chances below 0.02 are taken as 0.02."""
    look = examination_of(position, item, label > 0.5)
    return (label / np.maximum(look, SMALLEST)[position]).astype(np.float32), look
