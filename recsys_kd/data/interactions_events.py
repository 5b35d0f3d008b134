"""Events of a source table: cleaned, keyed and put in time order; a row that is left out is counted with its reason."""

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_kd.data.interactions_config import BadImport, ImportConfig
from recsys_kd.data.interactions_read import LABEL, LIBSVM, SourceColumns, clean, need, read_table
from recsys_kd.data.negatives import Events

Ints = NDArray[np.int64]
_PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
_CALENDAR = (-62_135_596_800, 253_402_300_800)
"""Years 1 to 9999 in seconds: a time beyond is a number in another unit."""
_OURS = (631_152_000, 4_102_444_800)
"""1990 to 2100 in seconds: when logs are from, unless their times count from a beginning of their own."""
_EXACT = 2**53
"""Whole numbers up to here are exact as float64; two larger ids could have become one."""


@dataclass(frozen=True)
class Source:
    """read = events + dropped; `users` and `items` are the raw ids by code."""

    events: Events
    read: int
    dropped: dict[str, int]
    users: pd.Index
    items: pd.Index


def read_events(config: ImportConfig) -> Source:
    """Read the source table into events in time order. Raises: InputError subclasses naming file, key and value."""
    where, names = str(config.source), config.columns
    table = read_table(config.source, (names.user, names.item))
    if table.empty:
        raise BadImport(f"{where}: holds no rows, only the columns {', '.join(map(str, table.columns))}; give its rows")
    found = clean(table, config.drop, where)
    _check_asked(found.rows, config)
    rows, dropped = _complete(found.rows, names, where, found.dropped), found.dropped
    frame = pd.DataFrame(
        {
            "user": as_ids(rows[names.user], f"{where}: columns.user '{names.user}'"),
            "item": as_ids(rows[names.item], f"{where}: columns.item '{names.item}'"),
            "time": _times(rows, names, where),
        }
    )
    if config.drop_duplicates:
        again = frame.duplicated()
        dropped["duplicate"] += int(again.sum())
        frame = frame[~again]
    frame = _k_core(_k_core(frame, "item", config.min_item, dropped), "user", config.min_user, dropped)
    if frame.empty:
        counts = ", ".join(f"{reason} {rows:,}" for reason, rows in dropped.items() if rows)
        raise BadImport(
            f"{where}: no rows are left of {found.read:,} ({counts}); loosen `drop`, `min_user` or `min_item`"
        )
    frame = frame.sort_values(["time", "user"], kind="stable")
    user, users = pd.factorize(frame["user"])
    item, items = pd.factorize(frame["item"])
    events = Events(user.astype(np.int64), item.astype(np.int64), frame["time"].to_numpy(), len(items))
    assert found.read == len(events.user) + sum(dropped.values()), "rows dropped do not add up"
    return Source(events, found.read, dict(dropped), users, items)


def _check_asked(rows: pd.DataFrame, config: ImportConfig) -> None:
    """Raise BadImport where libsvm labels say that rows are no events, and nothing asks for them."""
    names = config.columns
    asked = (names.user, names.item, names.time, names.order, names.label)
    if config.source.suffix not in LIBSVM or LABEL in asked or LABEL not in rows:
        return
    no_event = int((rows[LABEL] <= 0).sum())
    if no_event:
        raise BadImport(
            f"columns.label: {config.source}: {no_event:,} of {len(rows):,} rows have a label of 0 or less, and each "
            f"would become an event; set `columns: {{label: {LABEL}}}` to keep those above 0 alone (others are counted)"
        )


def _complete(rows: pd.DataFrame, names: SourceColumns, where: str, dropped: Counter[str]) -> pd.DataFrame:
    """Return the rows that name user, item and time and, where there is a label, are positive."""
    for name in ("user", "item", "order" if names.order else "time"):
        values = need(rows, getattr(names, name), f"columns.{name}", where)
        rows = _without(rows, _absent(values), "no time" if name == "order" else f"no {name}", dropped)
    if names.label is not None:
        values = pd.to_numeric(need(rows, names.label, "columns.label", where), errors="coerce")
        label = pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan), index=rows.index)
        rows = _without(rows, label.isna(), "no label", dropped)
        rows = _without(rows, label[rows.index] <= 0, "label not positive", dropped)
    return rows


def _absent(values: pd.Series) -> pd.Series:
    missing = values.isna()
    return missing | (values == "") if values.dtype == object else missing


def _without(rows: pd.DataFrame, mask: pd.Series, reason: str, dropped: Counter[str]) -> pd.DataFrame:
    if not mask.any():
        return rows
    dropped[reason] += int(mask.sum())
    return rows[~mask]


def as_ids(values: pd.Series, where: str) -> pd.Series:
    """Return ids as int64 or text; whole numbers held as floats (13085.0) are what they stand for.

    Raises: BadImport for fractions, for numbers beyond what their type holds exactly, for anything else.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        kind = type(values.iloc[0]).__name__ if len(values) else "text"
        if kind != "text" and pd.api.types.infer_dtype(values, skipna=False) != "string":
            raise BadImport(f"{where} holds {kind}; ids are whole numbers or text")
        return values.astype(object)
    limit = _EXACT if pd.api.types.is_float_dtype(values) else 2**63
    bad = values[(values % 1 != 0) | (values >= limit) | (values < -limit)]
    if len(bad):
        raise BadImport(
            f"{where}: {bad.iloc[0]} is no id that a whole number holds exactly; write ids as int64 or text"
        )
    return values.astype("int64")


def _times(rows: pd.DataFrame, names: SourceColumns, where: str) -> Ints:
    """Return milliseconds UTC; an order counts as seconds."""
    column = names.order or names.time or ""
    values, where = rows[column], f"{where}: columns.{'order' if names.order else 'time'} '{column}'"
    if pd.api.types.is_numeric_dtype(values) and names.time_format is None:
        return _numeric_times(values, "s" if names.order else names.time_unit, where, _key(names))
    if names.order:
        raise BadImport(f"{where}: '{values.iloc[0] if len(values) else ''}' is no number; an order is a whole number")
    if names.time_format is not None:
        values = values.astype("string")
    parsed = pd.to_datetime(values, errors="coerce", utc=True, format=names.time_format or "ISO8601")
    if parsed.isna().any():
        wanted = "ISO 8601 date" if names.time_format is None else f"date like columns.time_format {names.time_format}"
        raise BadImport(
            f"{where}: '{values[parsed.isna()].iloc[0]}' is no {wanted}; give its columns.time_format, such as "
            "%d/%m/%Y, or drop such rows by a rule"
        )
    return parsed.to_numpy(dtype="datetime64[ms]").astype(np.int64)


def _key(names: SourceColumns) -> str:
    """Return the key that a unit is named by: an order has none, a time has."""
    return "columns.time in place of columns.order, and its columns.time_unit" if names.order else "columns.time_unit"


def _numeric_times(values: pd.Series, unit: str, where: str, key: str) -> Ints:
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


def _k_core(frame: pd.DataFrame, column: str, least: int, dropped: Counter[str]) -> pd.DataFrame:
    if least <= 1:
        return frame
    keep = frame.groupby(column)[column].transform("size") >= least
    dropped[f"fewer than {least} rows of one {column}"] += int((~keep).sum())
    return frame[keep]
