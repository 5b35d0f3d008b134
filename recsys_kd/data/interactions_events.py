"""Events of a source table: cleaned, keyed and put in time order; a row that is left out is counted with its reason."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys_kd.data.interactions_config import BadImport, ImportConfig
from recsys_kd.data.interactions_read import LABEL, LIBSVM, TEXT, WHOLE, SourceColumns, clean, need, read_table
from recsys_kd.data.interactions_times import first, times
from recsys_kd.data.negatives import Events

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
    notes: tuple[str, ...]
    """What is to be said of values that were taken."""


def read_events(config: ImportConfig) -> Source:
    """Read the source table into events in time order. Raises: InputError subclasses naming file, key and value."""
    where, names = str(config.source), config.columns
    table = read_table(config.source, (names.user, names.item)).reset_index(drop=True)  # row numbers are told
    notes = _of_ids(table, config)
    if table.empty:
        raise BadImport(f"{where}: holds no rows, only the columns {', '.join(map(str, table.columns))}; give its rows")
    found = clean(table, config.drop, where)
    _check_asked(found.rows, config)
    rows, dropped = _complete(found.rows, names, where, found.dropped), found.dropped
    frame = pd.DataFrame(
        {
            "user": as_ids(rows[names.user], f"{where}: columns.user '{names.user}'"),
            "item": as_ids(rows[names.item], f"{where}: columns.item '{names.item}'"),
            "time": times(rows, names, config.source, notes),
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
    return Source(events, found.read, dict(dropped), users, items, tuple(notes))


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


def _of_ids(table: pd.DataFrame, config: ImportConfig) -> list[str]:
    """Return what to say of ids in a text file that are numbers but for a few, which make all of them text."""
    notes = []
    for key, column in (("user", config.columns.user), ("item", config.columns.item)):
        values = table[column].dropna() if column in table else pd.Series(dtype=object)
        if config.source.suffix not in TEXT or pd.api.types.is_numeric_dtype(values):
            continue
        whole = values.str.fullmatch(WHOLE).to_numpy(dtype=bool)
        if len(whole) / 2 < whole.sum() < len(whole):
            value, row = first(values, ~whole, config.source)
            notes.append(
                f"warning: {config.source}: columns.{key} '{column}': {int(whole.sum()):,} of {len(whole):,} ids are "
                f"whole numbers, but {value} ({row}) is not, so all are taken as text; "
                "mend it if it is a mistake"
            )
    return notes


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


def _k_core(frame: pd.DataFrame, column: str, least: int, dropped: Counter[str]) -> pd.DataFrame:
    if least <= 1:
        return frame
    keep = frame.groupby(column)[column].transform("size") >= least
    dropped[f"fewer than {least} rows of one {column}"] += int((~keep).sum())
    return frame[keep]
