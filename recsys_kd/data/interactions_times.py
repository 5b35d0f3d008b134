"""Times of a source table as milliseconds UTC; what can't be one, or hardly is, is told with its value and its row."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_kd.data.interactions_config import BadImport
from recsys_kd.data.interactions_read import TEXT, SourceColumns, numbers_of

Ints = NDArray[np.int64]
_PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
_CALENDAR = (-62_135_596_800, 253_402_300_800)
"""Years 1 to 9999 in seconds: a time beyond is a number in another unit."""
_OURS = (631_152_000, 4_102_444_800)
"""1990 to 2100 in seconds: when logs are from, unless their times count from a beginning of their own."""


def first(values: pd.Series, bad: NDArray[np.bool_], source: Path) -> tuple[str, str]:
    """Return the first bad value, and what its row in the source is called; `values` are labelled by row from 0."""
    place = int(bad.argmax())
    row, value = int(values.index[place]), str(values.iloc[place])[:40]
    return f"'{value}'", f"row {row + 2:,}, the header being the first" if source.suffix in TEXT else f"row {row + 1:,}"


def times(rows: pd.DataFrame, names: SourceColumns, source: Path, notes: list[str]) -> Ints:
    """Return milliseconds UTC; an order counts as seconds. What is to be said of times that are taken goes to `notes`.

    Raises: BadImport naming file, key, value and, where one of many is at fault, its row.
    """
    column = names.order or names.time or ""
    values, where = rows[column], f"{source}: columns.{'order' if names.order else 'time'} '{column}'"
    unit = "s" if names.order else names.time_unit
    if names.time_format is None and not pd.api.types.is_datetime64_any_dtype(values):
        values = _numbers(values, bool(names.order), source, where)
    if pd.api.types.is_numeric_dtype(values) and names.time_format is None:
        if not names.order:
            notes += _strays(values, unit, source, where)
        return _of_numbers(values, unit, where, _key(names))
    return _of_dates(values, names.time_format, source, where)


def _key(names: SourceColumns) -> str:
    """Return the key that a unit is named by: an order has none, a time has."""
    return "columns.time in place of columns.order, and its columns.time_unit" if names.order else "columns.time_unit"


def _numbers(values: pd.Series, order: bool, source: Path, where: str) -> pd.Series:
    """Return texts as numbers where they are: one bad cell makes a whole column of a text file text.

    Raises: BadImport for that cell, or for any that is no number in an order.
    """
    if pd.api.types.is_numeric_dtype(values):
        return values
    number = numbers_of(values)
    bad = number.isna().to_numpy()
    if not order and (bad.sum() > len(bad) / 2 or _dates(values, None).notna().all()):
        return values
    if bad.any():
        value, row = first(values, bad, source)
        what = f"{where}: {value} is no number ({row})"
        if order:
            raise BadImport(f"{what}; an order is a whole number: mend it, or drop such rows by a rule")
        raise BadImport(
            f"{what}, as {int((~bad).sum()):,} of {len(bad):,} are; mend it, or drop such rows by a rule "
            f"(`{{reason: no time, column: {values.name}, not_matching: '[0-9.]+'}}`)"
        )
    return pd.to_numeric(values)


def _strays(values: pd.Series, unit: str, source: Path, where: str) -> list[str]:
    """Return what to say of times long before or after most others, which lie in our days."""
    low, high = (bound * _PER_SECOND[unit] for bound in _OURS)
    raw = values.to_numpy(dtype=np.float64)
    stray = ~((raw >= low) & (raw < high))
    if not stray.any() or stray.mean() > 0.5:
        return []
    value, row = first(values, stray, source)
    return [
        f"warning: {where}: {int(stray.sum()):,} of {len(raw):,} times lie outside of the years 1990 to 2099, the "
        f"first {value} ({row}); they are taken as they are: drop such rows by a rule if "
        "they are mistakes"
    ]


def _dates(values: pd.Series, written: str | None) -> pd.Series:
    return pd.to_datetime(values, errors="coerce", utc=True, format=written or "ISO8601")


def _of_dates(values: pd.Series, written: str | None, source: Path, where: str) -> Ints:
    if written is not None:
        values = values.astype("string")
    parsed = _dates(values, written)
    bad = parsed.isna().to_numpy()
    if bad.any():
        wanted = "ISO 8601 date" if written is None else f"date like columns.time_format {written}"
        (value, row), good = first(values, bad, source), int((~bad).sum())
        others = f" ({row}), as {good:,} of {len(bad):,} are; mend it, or" if good else ";"
        raise BadImport(
            f"{where}: {value} is no {wanted}{others} give its columns.time_format, such as %d/%m/%Y, or "
            "drop such rows by a rule"
        )
    return parsed.to_numpy(dtype="datetime64[ms]").astype(np.int64)


def _of_numbers(values: pd.Series, unit: str, where: str, key: str) -> Ints:
    per_second = _PER_SECOND[unit]
    raw = values.to_numpy()
    low, high = (bound * per_second for bound in _CALENDAR)
    beyond = ~((raw >= max(low, -(2**63))) & (raw < min(high, 2**63)))
    if beyond.any():
        fitting = _fitting(raw)
        advice = f"name the unit (s, ms, us or ns) by {key}, or drop such rows by a rule"
        if fitting is not None:
            advice = f"set {key}: {fitting[0]}, which makes the first {fitting[1]}"
        raise BadImport(f"{where}: {values[beyond].iloc[0]} `{unit}` lie outside of the years 1 to 9999; {advice}")
    _check_unit(raw, unit, where, key)
    if raw.dtype.kind == "f":
        return np.floor(raw * (1000 / per_second)).astype(np.int64)
    whole = raw.astype(np.int64)
    return whole * (1000 // per_second) if per_second <= 1000 else whole // (per_second // 1000)


def _check_unit(raw: NDArray[Any], unit: str, where: str, key: str) -> None:
    """Raise BadImport where all times lie before there were logs, and another unit has them all in our days."""
    fitting = _fitting(raw)
    if fitting is not None and raw.max() < _OURS[0] * _PER_SECOND[unit]:
        told = dt.datetime.fromtimestamp(raw[0] / _PER_SECOND[unit], dt.UTC).date()
        raise BadImport(
            f"{where}: the first, {raw[0]}, would be of {told} in `{unit}`; set {key}: {fitting[0]}, which "
            f"makes it {fitting[1]}"
        )


def _fitting(raw: NDArray[Any]) -> tuple[str, dt.date] | None:
    """Return the unit that has all times in our days, and the day of the first; None where none has."""
    for unit, per_second in _PER_SECOND.items():
        if len(raw) and raw.min() >= _OURS[0] * per_second and raw.max() < _OURS[1] * per_second:
            return unit, dt.datetime.fromtimestamp(raw[0] / per_second, dt.UTC).date()
    return None
