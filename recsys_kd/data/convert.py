"""Arrow columns into NumPy, with a mask of the values that are not what they should be."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_kd.ids import hash_string
from recsys_kd.schema import KeyKind

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
_CACHE_LIMIT = 2_000_000
_TO_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}


class Converted(NamedTuple):
    """Values [N] (0 where bad); `null` and `wrong` are masks, or None where no value is."""

    values: NDArray[np.generic]
    null: Mask | None
    wrong: Mask | None = None


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds strings."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def key_kind(kind: pa.DataType) -> KeyKind | None:
    """Return how a column's values become keys, None where they can't (floats, structs, ...)."""
    if is_text(kind):
        return "string"
    return "int64" if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else None


def nulls(array: pa.Array) -> Mask | None:
    """Return the mask of nulls, None where there are none."""
    return np.asarray(array.is_null()) if array.null_count else None


class TextKeys:
    """Hashes strings to keys, remembering those already seen."""

    def __init__(self) -> None:
        self.cache: dict[str, int] = {}

    def __call__(self, array: pa.Array) -> Ints:
        """Return the keys of a string array [N]; null gives 0."""
        encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        if len(self.cache) > _CACHE_LIMIT:
            self.cache.clear()
        keys = np.fromiter((self._key(v) for v in encoded.dictionary.to_pylist()), dtype=np.int64)
        codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return keys[codes] if len(keys) else np.zeros(len(array), dtype=np.int64)

    def _key(self, value: str) -> int:
        key = self.cache.get(value)
        if key is None:
            key = self.cache[value] = hash_string(value)
        return key


def keys_of(array: pa.Array, text: TextKeys) -> Converted:
    """Return int64 keys of an integer, boolean or string column."""
    missing = nulls(array)
    if is_text(array.type):
        return Converted(text(array), missing)
    filled = array if missing is None else array.fill_null(0)
    if pa.types.is_boolean(array.type):
        filled = filled.cast(pa.int8())
    return Converted(filled.to_numpy(zero_copy_only=False).astype(np.int64, copy=False), missing)


def numbers(array: pa.Array) -> Converted:
    """Return float32 numbers; text is parsed, and what does not parse is `wrong`."""
    missing = nulls(array)
    if is_text(array.type):
        parsed = pd.to_numeric(array.to_pandas(), errors="coerce").to_numpy(dtype=np.float64)
        wrong = np.isnan(parsed) & ~(missing if missing is not None else False)
        return Converted(np.nan_to_num(parsed).astype(np.float32), missing, wrong if wrong.any() else None)
    if pa.types.is_decimal(array.type) or pa.types.is_boolean(array.type):
        array = array.cast(pa.float64() if pa.types.is_decimal(array.type) else pa.int8())
    filled = array if missing is None else array.fill_null(0)
    return Converted(filled.to_numpy(zero_copy_only=False).astype(np.float32, copy=False), missing)


def times(array: pa.Array, unit: str) -> Converted:
    """Return int64 milliseconds UTC from a timestamp, date, number (in `unit`) or ISO 8601 text column."""
    missing = nulls(array)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        stamps = array.cast(pa.timestamp("ms"), safe=False) if pa.types.is_date(array.type) else array
        if array.type != pa.timestamp("ms"):
            stamps = pc.floor_temporal(stamps, unit="millisecond") if stamps.type.unit in ("us", "ns") else stamps
            stamps = stamps.cast(pa.timestamp("ms", stamps.type.tz), safe=False)
        filled = stamps.cast(pa.int64()) if missing is None else stamps.cast(pa.int64()).fill_null(0)
        return Converted(filled.to_numpy(zero_copy_only=False), missing)
    if is_text(array.type):
        parsed = pd.to_datetime(array.to_pandas(), errors="coerce", utc=True, format="ISO8601")
        wrong = parsed.isna().to_numpy() & ~(missing if missing is not None else False)
        stamp = parsed.fillna(pd.Timestamp(0, tz="UTC")).to_numpy(dtype="datetime64[ms]").astype(np.int64)
        return Converted(stamp, missing, wrong if wrong.any() else None)
    filled = array if missing is None else array.fill_null(0)
    raw = filled.to_numpy(zero_copy_only=False)
    if raw.dtype.kind == "f":
        wrong = ~np.isfinite(raw)
        return Converted((np.nan_to_num(raw) * _TO_MS[unit]).astype(np.int64), missing, wrong if wrong.any() else None)
    raw = raw.astype(np.int64, copy=False)
    if unit in ("s", "ms"):
        return Converted(raw * 1000 if unit == "s" else raw, missing)
    return Converted(raw // (1000 if unit == "us" else 1_000_000), missing)
