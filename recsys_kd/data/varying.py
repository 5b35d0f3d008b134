"""Item-side fields of the log that are no function of the item: how often, and the values of one such item.

A model holds one value per item. Which it is decides what is served, so where a log gives several the night says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.convert import Ints, Mask, TextKeys
from recsys_kd.data.counts import Varying
from recsys_kd.data.items import NULL_KEY, RawBag, RawField, spread

_SHOWN = 3
"""Values of a list that a message shows."""


def differ(one: RawField, other: RawField) -> Mask:
    """Return which cells [N] of two fields are not alike; missing numbers (NaN) are."""
    if isinstance(one, RawBag) and isinstance(other, RawBag):
        lengths = np.diff(one.offsets)
        unlike: Mask = lengths != np.diff(other.offsets)
        cell = np.repeat(np.arange(len(lengths)), lengths)
        cell_too = np.repeat(np.arange(len(lengths)), np.diff(other.offsets))
        # Only cells of one length are compared, so both sides name them in the same order.
        same, same_too = ~unlike[cell], ~unlike[cell_too]
        unlike[cell[same][one.values[same] != other.values[same_too]]] = True
        return unlike
    a, b = np.asarray(one), np.asarray(other)
    apart: Mask = a != b
    if a.dtype.kind == "f":
        apart &= ~(np.isnan(a) & np.isnan(b))
    return apart if apart.ndim == 1 else np.any(apart, axis=1)


def varying(
    values: Iterable[tuple[slice, RawField]], item_row: NDArray[np.generic], used: RawField, known: Mask, names: "Names"
) -> Varying | None:
    """Compare a field's blocks, in time order, with the value that each item got; None where they are alike.

    item_row [N]: the item of every row; used: a value per item; known [items]: those that got theirs from the log.
    """
    varied, rows, first = np.zeros(len(known), dtype=bool), 0, None
    for part, block in values:
        item = item_row[part].astype(np.int64)
        unlike = np.flatnonzero(known[item] & differ(block, _at(used, item, len(known))))
        varied[item[unlike]] = True
        rows += len(unlike)
        if first is None and len(unlike):
            at = int(item[unlike[0]])
            first = at, names.value(block, int(unlike[0])), names.value(used, at)
    if first is None:
        return None
    return Varying(int(varied.sum()), rows, names.item(first[0]), first[1], first[2])


def _at(values: RawField, at: Ints, known: int) -> RawField:
    return spread({"": values}, at, known)[""] if isinstance(values, RawBag) else values[at]


@dataclass(frozen=True)
class Names:
    """What keys stood for, as a message says it: `items` by item row, `ids` and `text` where keys are hashed texts."""

    items: Ints
    ids: TextKeys | None
    text: TextKeys | None

    def item(self, row: int) -> str:
        """Return an item as the log names it."""
        return named(int(self.items[row]), self.ids)

    def value(self, values: RawField, at: int) -> str:
        """Return the value of a cell."""
        if isinstance(values, RawBag):
            keys = values.values[values.offsets[at] : values.offsets[at + 1]]
            return _listed([named(int(key), self.text) for key in keys])
        if values.ndim == 2:
            return _listed([str(number) for number in values[at]])
        if values.dtype.kind == "f":
            return "null" if np.isnan(values[at]) else str(values[at])
        return named(int(values[at]), self.text)


def named(key: int, text: TextKeys | None) -> str:
    """Return what a key stands for; a text that is no longer remembered is told as such."""
    if key == NULL_KEY:
        return "null"
    if text is None:
        return str(key)
    found = text.text_of(key)
    return "a text" if found is None else repr(found)


def _listed(values: list[str]) -> str:
    more = ", ..." if len(values) > _SHOWN else ""
    return f"[{', '.join(values[:_SHOWN])}{more}]"
