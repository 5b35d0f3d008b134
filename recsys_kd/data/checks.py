"""Row checks: which rows may train, and why each of the others may not.

The first reason that applies is the one recorded; a batch without a bad value costs a few minima and maxima.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.data.convert import Converted, Ints, Mask, TextKeys, is_text, keys_of, numbers, sound_text, times
from recsys_kd.data.counts import TINY_PROPENSITY
from recsys_kd.data.layout import CHANCE, SCORE, Layout
from recsys_kd.ids import mix
from recsys_kd.settings import SMALLEST_PROPENSITY, DataConfig, FieldConfig, milliseconds

_CALENDAR = (-62_135_596_800_000, 253_402_300_800_000)
"""Years 1 to 9999 in ms: a time beyond is a number in another unit, and would take the whole test split for itself."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Canonical:
    """One batch in canonical form; `reason` [N] indexes `RowChecker.causes`, 0 good, None where every row is."""

    user: Ints
    item: Ints
    timestamp: Ints
    label: Floats
    request: Ints | None
    numbers: dict[str, NDArray[Any]]
    """position, propensity, weight, extra columns and dense fields: float32, scores float64."""
    vectors: dict[str, Floats]
    reason: NDArray[np.uint16] | None

    @property
    def event_keys(self) -> tuple[Ints, ...]:
        """What identifies an event: user, item, time, and request where there is one."""
        keys = (self.user, self.item, self.timestamp)
        return keys if self.request is None else (*keys, self.request)

    def hashes(self) -> Ints:
        """Return the event hash of every row [N]."""
        return mix(*self.event_keys)


class RowChecker:
    """Converts and checks batches of one log."""

    def __init__(self, config: DataConfig, layout: Layout, text: dict[str, TextKeys] | None = None) -> None:
        self.config = config
        self.layout = layout
        self.text = text or {name: TextKeys() for name in ("user_id", "item_id", "request_id")}
        """Keys by canonical name; those that another pass over the log remembers need not be made again."""
        start, end = config.window.start, config.window.end
        self.start = _CALENDAR[0] if start is None else milliseconds(start)
        self.end = _CALENDAR[1] if end is None else milliseconds(end)
        self.causes: list[tuple[str, str]] = [("", "")]
        """(reason, log column) per code."""
        self._reason: NDArray[np.uint16] | None = None

    def _mark(self, mask: Mask | None, reason: str, name: str) -> None:
        """Give rows of a mask [N] their reason, unless they have one already."""
        if mask is None or not mask.any():
            return
        if mask.dtype != np.bool_:
            raise TypeError(f"mask of '{name}' is {mask.dtype}: as an index it would mark other rows")
        if self._reason is None:
            self._reason = np.zeros(len(mask), dtype=np.uint16)
        cause = (reason, self.layout.columns[name])
        if cause not in self.causes:
            self.causes.append(cause)
        self._reason[mask & (self._reason == 0)] = self.causes.index(cause)

    def _take(self, name: str, value: Converted, null: str = "null_key") -> Converted:
        self._mark(value.null, null, name)
        self._mark(value.wrong, "wrong_type", name)
        return value

    def _keys(self, name: str, array: pa.Array) -> Ints:
        """Return keys of ids; an empty text, or one of spaces, is none."""
        text = self.text[name]
        keys = self._take(name, keys_of(array, text)).values.astype(np.int64, copy=False)
        if text.blank:
            self._mark(np.isin(keys, list(text.blank)), "null_key", name)
        return keys

    def _columns(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        """Return the columns by canonical name, text that isn't UTF-8 marked and made null."""
        column = {name: batch.column(source) for name, source in self.layout.columns.items()}
        for name, array in column.items():
            if is_text(array.type) or is_text(getattr(array.type, "value_type", array.type)):
                column[name], bad = sound_text(array)
                self._mark(bad, "wrong_type", name)
        return column

    def check(self, batch: pa.RecordBatch) -> Canonical:
        """Return the batch in canonical form with the reason of every bad row."""
        self._reason, rows = None, batch.num_rows
        column = self._columns(batch)
        keys = {name: self._keys(name, column[name]) for name in self.text if name in column}
        stamps = self._take("timestamp", times(column["timestamp"], self.config.timestamp_unit))
        stamp = stamps.values.astype(np.int64, copy=False)
        label = self._take("label", numbers(column["label"])).values.astype(np.float32, copy=False)
        self._check_label(label, rows)
        self._check_window(stamp, rows)
        values = {n: self._number(n, column[n]) for n in column if n in ("position", "propensity", "weight")}
        known = {"user_id", "item_id", "timestamp", "label", "request_id", "split", *values}
        fields = {f.name: f for f in self.layout.log_fields}
        vectors = {n: self._vector(f, column[n]) for n, f in fields.items() if f.kind == "vector"}
        for name in column:
            if name not in known and (name not in fields or fields[name].kind == "dense"):
                values[name] = self._dense(name, fields.get(name), column[name])
        request = keys.get("request_id")
        return Canonical(
            keys["user_id"],
            keys["item_id"],
            stamp,
            label / self.config.label_max,
            request,
            values,
            vectors,
            self._reason,
        )

    def _check_label(self, label: Floats, rows: int) -> None:
        if rows == 0 or (label.min() >= 0 and label.max() <= self.config.label_max):
            return
        self._mark(np.isnan(label), "nan", "label")
        self._mark(label < 0, "negative_label", "label")
        self._mark(label > self.config.label_max, "out_of_range", "label")

    def _check_window(self, stamp: Ints, rows: int) -> None:
        if rows == 0 or (stamp.min() >= self.start and stamp.max() < self.end):
            return
        self._mark((stamp < self.start) | (stamp >= self.end), "timestamp_out_of_window", "timestamp")

    def _number(self, name: str, array: pa.Array) -> Floats:
        values = self._take(name, numbers(array), "nan").values.astype(np.float32, copy=False)
        self._mark(np.isnan(values), "nan", name)
        high = 1.0 if name == "propensity" else np.finfo(np.float32).max
        self._mark((values < 0) | (values > high), "out_of_range", name)
        if name == "propensity":
            self._mark(values < np.float32(SMALLEST_PROPENSITY), TINY_PROPENSITY, name)
        return values

    def _dense(self, name: str, field: FieldConfig | None, array: pa.Array) -> NDArray[Any]:
        dtype: type[np.floating[Any]] = np.float64 if name.startswith(SCORE) else np.float32
        value = numbers(array, dtype)
        values = value.values.astype(dtype)
        bad = ~np.isfinite(values)
        if value.null is not None:
            bad |= value.null
        if field is not None and field.missing == "accept":
            values[bad] = np.nan
        else:
            self._mark(bad, "nan", name)
        if name.startswith(SCORE):
            self._mark(np.abs(values) > np.finfo(np.float32).max, "out_of_range", name)
        if name.startswith(CHANCE):
            self._mark((values < 0) | (values > 1), "out_of_range", name)
        self._mark(value.wrong, "wrong_type", name)
        return values

    def _vector(self, field: FieldConfig, array: pa.Array) -> Floats:
        found = vectors_of(array, field.dim)
        self._mark(found.wrong_length, "bad_vector", field.name)
        if field.missing == "quarantine":
            self._mark(found.missing, "bad_vector", field.name)
        return found.values


class Vectors(NamedTuple):
    """Values float32 [N, dim], zeros where bad; masks of the rows that are null or not finite, or of another length."""

    values: Floats
    missing: Mask
    wrong_length: Mask


def vectors_of(array: pa.Array, dim: int) -> Vectors:
    """Return lists as rows of a matrix."""
    out, null = np.zeros((len(array), dim), dtype=np.float32), np.asarray(array.is_null())
    wrong = ~null & (lengths_of(array) != dim)
    good = array.filter(pa.array(~(null | wrong)))
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and told as any value that is no number
        flat = good.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    out[~(null | wrong)] = flat.reshape(-1, dim)
    broken = ~np.isfinite(out).all(axis=1)
    out[broken] = 0.0
    return Vectors(out, null | broken, wrong)


def lengths_of(array: pa.Array) -> Ints:
    """Return how many values each list holds, 0 for null [N]."""
    if pa.types.is_fixed_size_list(array.type):
        return np.where(np.asarray(array.is_null()), 0, array.type.list_size).astype(np.int64)
    return np.asarray(array.value_lengths().fill_null(0)).astype(np.int64)
