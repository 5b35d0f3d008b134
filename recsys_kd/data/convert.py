"""Arrow columns into NumPy, with a mask of the values that are not what they should be."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.ids import hash_strings
from recsys_kd.schema import KeyKind

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
_CACHE_LIMIT = 1_000_000
_TO_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_FARTHEST = 1 << 62
"""Milliseconds that a time outside of every calendar is cut to; the window check refuses it."""
_EPOCH_TEXT = r"[+-]?\d{9,}(\.\d*)?"
"""Text that is a number of `timestamp_unit`, not a date: 20260131 and 2026 are dates."""


class HashCollision(InputError):
    """Two different string ids have the same 64-bit key."""


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
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return "int64" if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else None


def nulls(array: pa.Array) -> Mask | None:
    """Return the mask of nulls, None where there are none."""
    return np.asarray(array.is_null()) if array.null_count else None


def sound_text(array: pa.Array) -> tuple[pa.Array, Mask | None]:
    """Return text (or lists of text) with values that aren't UTF-8 made null, and the mask of their rows [N] or None.

    Parquet readers don't look: such a value would raise wherever it is first used as text.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        pass
    else:
        return array, None
    plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    nested = not is_text(plain.type)
    raw = plain.cast(pa.list_(pa.large_binary()) if nested else pa.large_binary())
    values = [_decoded(v) for v in raw.to_pylist()]
    bad = np.array([v is _UNDECODABLE for v in values])
    kind = pa.list_(pa.string()) if nested else pa.string()
    return pa.array([None if v is _UNDECODABLE else v for v in values], kind), bad


_UNDECODABLE = object()


def _decoded(value: bytes | list[bytes | None] | None) -> object:
    try:
        if isinstance(value, list):
            return [v and v.decode() for v in value]
        return value if value is None else value.decode()
    except UnicodeDecodeError:
        return _UNDECODABLE


class TextKeys:
    """Hashes strings to keys, once per distinct value of a batch, remembering those seen of late."""

    def __init__(self) -> None:
        self.cache: dict[str, int] = {}
        self.older: dict[str, int] = {}
        """What `cache` was before it was full: frequent values come back from here without being hashed again."""
        self.blank: set[int] = set()
        """Keys of texts that are empty or spaces: as an id they stand for none."""

    def __call__(self, array: pa.Array) -> Ints:
        """Return the keys of a string array [N]; null gives 0."""
        encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        keys = self._keys(encoded.dictionary.fill_null("").to_pylist())
        codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return keys[codes] if len(keys) else np.zeros(len(array), dtype=np.int64)

    def text_of(self, key: int) -> str | None:
        """Return the string that a key was made of, None where it is not remembered; it looks through all of them."""
        both = {**self.older, **self.cache}
        return next((value for value, found in both.items() if found == key), None)

    def check_collisions(self) -> None:
        """Raise HashCollision if two of the remembered strings share a key (odds of 1e-7 at the 2M remembered)."""
        both = {**self.older, **self.cache}
        if len(set(both.values())) == len(both):
            return
        owner: dict[int, str] = {}
        for value, key in both.items():
            if owner.setdefault(key, value) != value:
                raise HashCollision(f"ids {owner[key]!r} and {value!r} have the same 64-bit key; rename one of them")

    def _keys(self, values: list[str]) -> Ints:
        found = list(map(self.cache.get, values))
        if None in found:
            found = self._add(values, found)
        return np.array(found, dtype=np.int64)

    def _add(self, values: list[str], found: list[int | None]) -> list[int | None]:
        new = [value for value, key in zip(values, found, strict=True) if key is None]
        if len(self.cache) + len(new) > _CACHE_LIMIT:
            self.check_collisions()
            self.older, self.cache, new = self.cache, {}, values
        known = {value: self.older[value] for value in new if value in self.older}
        fresh = [value for value in new if value not in known]
        self.cache.update(known)
        self.cache.update(zip(fresh, hash_strings(fresh).tolist(), strict=True))
        self.blank.update(self.cache[value] for value in fresh if not value or value.isspace())
        return list(map(self.cache.get, values))


def keys_of(array: pa.Array, text: TextKeys) -> Converted:
    """Return int64 keys of an integer, boolean or string column."""
    missing = nulls(array)
    if is_text(array.type):
        return Converted(text(array), missing)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    filled = array if missing is None else array.fill_null(0)
    if pa.types.is_boolean(array.type):
        filled = filled.cast(pa.int8())
    return Converted(filled.to_numpy(zero_copy_only=False).astype(np.int64, copy=False), missing)


def _unreadable(bad: Mask, missing: Mask | None) -> Mask | None:
    """Return the rows whose value could not be read though there is one."""
    wrong = bad if missing is None else bad & ~missing
    return wrong if wrong.any() else None


def numbers(array: pa.Array, dtype: type[np.floating[Any]] = np.float32) -> Converted:
    """Return float numbers; text is parsed, and what does not parse is `wrong`."""
    missing = nulls(array)
    if is_text(array.type):
        parsed = pd.to_numeric(array.to_pandas(), errors="coerce").to_numpy(dtype=np.float64)
        wrong = _unreadable(np.isnan(parsed), missing)
        with np.errstate(over="ignore"):
            return Converted(np.nan_to_num(parsed, posinf=np.inf, neginf=-np.inf).astype(dtype), missing, wrong)
    if pa.types.is_decimal(array.type) or pa.types.is_boolean(array.type):
        array = array.cast(pa.float64() if pa.types.is_decimal(array.type) else pa.int8())
    filled = array if missing is None else array.fill_null(0)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and told as any value that is no number
        return Converted(filled.to_numpy(zero_copy_only=False).astype(dtype, copy=False), missing)


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
        return _text_times(array, unit, missing)
    filled = array if missing is None else array.fill_null(0)
    raw = filled.to_numpy(zero_copy_only=False)
    if raw.dtype.kind == "f":
        wrong = ~np.isfinite(raw)
        return Converted(_float_times(np.nan_to_num(raw), unit), missing, wrong if wrong.any() else None)
    if raw.dtype == np.uint64:
        raw = np.minimum(raw, _FARTHEST)
    raw = raw.astype(np.int64, copy=False)
    if unit == "s":
        limit = _FARTHEST // 1000
        # Cut before multiplying: an overflow could land inside the window.
        inside = len(raw) == 0 or (raw.min() > -limit and raw.max() < limit)
        return Converted((raw if inside else raw.clip(-limit, limit)) * 1000, missing)
    return Converted(raw if unit == "ms" else raw // (1000 if unit == "us" else 1_000_000), missing)


def _float_times(raw: NDArray[np.floating], unit: str) -> Ints:
    # Cut before multiplying too: 1e308 seconds are no float of milliseconds.
    cut = raw.astype(np.float64).clip(-_FARTHEST, _FARTHEST) * _TO_MS[unit]
    return cut.clip(-_FARTHEST, _FARTHEST).astype(np.int64)


def _text_times(array: pa.Array, unit: str, missing: Mask | None) -> Converted:
    """Return milliseconds from text: ISO 8601, or a number of at least 9 digits in `unit`."""
    plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    text = plain.to_pandas()
    number = text.str.fullmatch(_EPOCH_TEXT).fillna(False).to_numpy(dtype=bool)
    parsed = pd.to_datetime(text.mask(number), errors="coerce", utc=True, format="ISO8601")
    wrong = _unreadable(parsed.isna().to_numpy() & ~number, missing)
    stamp = parsed.fillna(pd.Timestamp(0, tz="UTC")).to_numpy(dtype="datetime64[ms]").astype(np.int64)
    if number.any():
        stamp[number] = _float_times(text[number].astype(np.float64).to_numpy(), unit)
    return Converted(stamp, missing, wrong)
