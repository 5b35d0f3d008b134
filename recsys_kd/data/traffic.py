"""How often training looks up each row of a vocabulary: what pruning weighs rows by."""

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.items import RawBag, RawField
from recsys_kd.schema import Field


def training_traffic(field: Field, coded: RawField, items: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Return lookups per vocabulary row [size], fallback last.

    coded: the field's vocabulary rows, per item for item-side fields, else per log row in time order. items: item row
    of every training row. One of a bag's L values counts 1 / L^2: it moves the pooled mean by 1 / L, and what is
    summed is squared error.
    """
    if field.side == "item":
        if isinstance(coded, RawBag):
            return np.bincount(coded.values, minlength=size).astype(np.float64)
        return np.bincount(coded[items].astype(np.int64), minlength=size).astype(np.float64)
    stop = len(items)
    if isinstance(coded, RawBag):
        lengths = np.diff(coded.offsets[: stop + 1])
        share = np.repeat(1.0 / np.maximum(lengths, 1) ** 2, lengths)
        return np.bincount(coded.values[: coded.offsets[stop]], weights=share, minlength=size).astype(np.float64)
    return np.bincount(coded[:stop].astype(np.int64), minlength=size).astype(np.float64)
