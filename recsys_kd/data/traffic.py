"""How often training looks up each row of a vocabulary: what pruning weighs rows by.

One of a bag's L values counts 1 / L^2: it moves the pooled mean by 1 / L, and what is summed is squared error. Rows may
count less than one lookup, those of long ago for example.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Lists(Protocol):
    """Values of several rows: row i has values[offsets[i]:offsets[i + 1]]."""

    @property
    def values(self) -> NDArray[np.int64]:
        """All rows' values, one row after the other."""
        ...

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each row's values begin, and where the last one's end."""
        ...


Coded = NDArray[np.generic] | Lists


def lookups(coded: Coded, size: int, weight: Floats | None = None) -> Floats:
    """Return lookups per vocabulary row [size] of training rows whose vocabulary rows are `coded`.

    weight: what each training row counts; 1 where there is none. Of items: how many training rows show each.
    """
    if not isinstance(coded, np.ndarray):
        lengths = np.diff(coded.offsets)
        share = (1.0 if weight is None else weight) / np.maximum(lengths, 1) ** 2
        return np.bincount(coded.values, weights=np.repeat(share, lengths), minlength=size).astype(np.float64)
    return np.bincount(coded, weights=weight, minlength=size).astype(np.float64)
