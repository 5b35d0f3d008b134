"""How often training looks up each row of a vocabulary: what pruning weighs rows by.

One of a bag's L values counts 1 / L^2: it moves the pooled mean by 1 / L, and what is summed is squared error.
"""

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.items import RawBag, RawField

Floats = NDArray[np.float64]


def lookups(coded: RawField, size: int) -> Floats:
    """Return lookups per vocabulary row [size] of training rows whose vocabulary rows are `coded`."""
    if isinstance(coded, RawBag):
        lengths = np.diff(coded.offsets)
        share = np.repeat(1.0 / np.maximum(lengths, 1) ** 2, lengths)
        return np.bincount(coded.values, weights=share, minlength=size).astype(np.float64)
    return np.bincount(coded, minlength=size).astype(np.float64)


def item_lookups(coded: RawField, shown: Floats, size: int) -> Floats:
    """Return lookups per vocabulary row [size] of an item-side field, `coded` per item, `shown` training rows each."""
    if isinstance(coded, RawBag):
        return np.bincount(coded.values, minlength=size).astype(np.float64)
    return np.bincount(coded, weights=shown, minlength=size).astype(np.float64)
