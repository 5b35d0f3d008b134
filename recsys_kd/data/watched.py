"""What a plan sees of item-side fields while it counts a log's rows: whether they vary within an item.

Categories and numbers only: lists would cost more than the counting does. The night itself compares every field.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from recsys_kd.data.checks import Canonical
from recsys_kd.data.convert import Ints, Mask, TextKeys, is_text, numbers, sound_text
from recsys_kd.data.items import categories_of
from recsys_kd.data.layout import Layout, column_of
from recsys_kd.data.varying import named
from recsys_kd.settings import FieldConfig


@dataclass
class Watched:
    """One field: the first value of every item, and the items that have others. Memory: 17 bytes an item."""

    config: FieldConfig
    kind: pa.DataType
    text: TextKeys = field(default_factory=TextKeys)
    items: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    values: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    varied: Mask = field(default_factory=lambda: np.zeros(0, dtype=bool))
    example: str = ""

    def add(self, batch: pa.RecordBatch, rows: Canonical, ids: TextKeys) -> None:
        """Take the values of a batch's good rows; `ids`: the texts that item keys were made of."""
        value, good = self._values(batch.column(column_of(self.config)))
        if rows.reason is not None:
            good &= rows.reason == 0
        item, value = rows.item[good], value[good]
        known, first = np.unique(item, return_index=True)
        new = ~np.isin(known, self.items, assume_unique=True)
        self._meet(known[new], value[first[new]])
        at = np.searchsorted(self.items, item)
        other = np.flatnonzero(self.values[at] != value)
        if len(other) and not self.example:
            one = other[0]
            shown = (self._shown(int(v)) for v in (self.values[at[one]], value[one]))
            key = named(int(item[one]), ids if ids.cache else None)
            self.example = f"item {key}: {' and '.join(shown)}"
        self.varied[at[other]] = True

    def _meet(self, items: Ints, values: Ints) -> None:
        """Take new items in, with their first values."""
        joined = np.concatenate([self.items, items])
        order = np.argsort(joined, kind="stable")
        self.items = joined[order]
        self.values = np.concatenate([self.values, values])[order]
        self.varied = np.concatenate([self.varied, np.zeros(len(items), dtype=bool)])[order]

    def _values(self, array: pa.Array) -> tuple[Ints, Mask]:
        """Return a key per cell [N], alike where values are, and which cells a night would use."""
        everything = np.ones(len(array), dtype=bool)
        if self.config.kind == "categorical":
            return categories_of(sound_text(array)[0] if is_text(array.type) else array, self.text), everything
        number = numbers(array)
        value = number.values.astype(np.float32) + np.float32(0)  # -0 is 0
        missing = ~np.isfinite(value) if number.null is None else ~np.isfinite(value) | number.null
        value[missing] = np.nan
        return value.view(np.int32).astype(np.int64), everything if self.config.missing == "accept" else ~missing

    def _shown(self, key: int) -> str:
        if self.config.kind == "categorical":
            return named(key, self.text if is_text(self.kind) else None)
        value = np.array([key], dtype=np.int32).view(np.float32)[0]
        return "null" if np.isnan(value) else str(value)

    def line(self) -> str | None:
        """Return in words that the field varies, None where it does not."""
        items = int(self.varied.sum())
        if not items:
            return None
        return (
            f"field '{self.config.name}' is to be the item's own, yet {items:,} item(s) have several values in the log "
            f"({self.example}): the last of the training days will be used. If it depends on more than the item, give "
            "it `side: candidate`"
        )


def watched_of(layout: Layout) -> tuple[Watched, ...]:
    """Return what a plan watches of a log's fields."""
    kinds = ("categorical", "dense")
    return tuple(Watched(f, layout.types[f.name]) for f in layout.log_fields if f.side == "item" and f.kind in kinds)
