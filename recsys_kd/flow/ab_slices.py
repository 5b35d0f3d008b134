"""For whom: masks over a scored log by items' and users' traffic, day, and the values of named columns."""

import datetime as dt

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.convert import TextKeys, keys_of
from recsys_kd.data.files import open_parquet, read_table
from recsys_kd.data.layout import MissingColumn
from recsys_kd.flow.ab_columns import Names
from recsys_kd.flow.ab_log import ScoredLog
from recsys_kd.settings import DataConfig

Mask = NDArray[np.bool_]
MOST_VALUES = 12
_DAY_MS, _TAIL = 86_400_000, 0.2


def catalogue_column(config: DataConfig, name: str, items: NDArray[np.int64]) -> tuple[NDArray[np.int64], Names]:
    """Return a catalogue column's keys for every item key [N], -1 where it has none, and their names."""
    keys, table = _catalogue(config, name, "ab.slices")
    names = Names()
    values = names.keys(table)
    return _by_item(keys, values, items, -1), names


def catalogue_numbers(config: DataConfig, name: str, items: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a catalogue column's numbers for every item key [N], 0 where it has none."""
    keys, table = _catalogue(config, name, "ab.price")
    values = table.cast("float64").to_numpy(zero_copy_only=False).astype(np.float32)
    found: NDArray[np.float32] = np.nan_to_num(_by_item(keys, values, items, 0.0))
    return found


def _catalogue(config: DataConfig, name: str, asked: str):  # type: ignore[no-untyped-def]
    key = config.columns.item_id
    if config.catalogue is None:
        raise MissingColumn(
            f"{asked}: no column '{name}' in the log {config.path}, and no catalogue: give a recipe that names one"
        )
    held = open_parquet(config.catalogue).schema_arrow.names
    if name not in held:
        raise MissingColumn(
            f"{asked}: no column '{name}' in the log {config.path}, nor in the catalogue "
            f"{config.catalogue}, which has {', '.join(held)}; name a column that is there"
        )
    table = read_table(config.catalogue, [key, name])
    return keys_of(table[key].combine_chunks(), TextKeys()).values.astype(np.int64), table[name].combine_chunks()


def _by_item(keys: NDArray[np.int64], values: NDArray, items: NDArray[np.int64], missing: float) -> NDArray:  # type: ignore[type-arg]
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys[order], items), max(len(keys) - 1, 0))
    found = keys[order][at] == items
    return np.where(found, values[order][at], np.asarray(missing, dtype=values.dtype))


def slices_of(log: ScoredLog) -> dict[str, Mask]:
    """Return masks [N] by name: items and users by traffic, days where there are several, and columns' values.

    Cold items and new users are known from the rows before `since`; without such rows there are none of these slices.
    """
    traffic = np.bincount(log.item)
    order = np.argsort(traffic, kind="stable")
    tail = np.zeros(len(traffic), dtype=bool)
    tail[order[np.cumsum(traffic[order]) <= _TAIL * len(log)]] = True
    found = {"tail items (last fifth of impressions)": tail[log.item]}
    if len(log.before["item"]):
        cold = ~np.isin(log.items, log.before["item"])[log.item]
        found |= {"cold items (not shown before)": cold, "known items": ~cold}
        new = ~np.isin(log.users, log.before["user"])[log.user]
        found |= {"new users (not seen before)": new, "known users": ~new}
    return found | _days(log) | _values(log)


def day_note(log: ScoredLog) -> list[str]:
    """Return why there are no slices by day, where the log has more days than are told apart."""
    days = len(np.unique(log.stamp // _DAY_MS))
    if days <= MOST_VALUES:
        return []
    return [
        f"slices by day are left out: the log has {days} days, and at most {MOST_VALUES} are told apart; compare later "
        "rows (--since), or name a column of weeks (ab.slices)"
    ]


def _days(log: ScoredLog) -> dict[str, Mask]:
    day = log.stamp // _DAY_MS
    days = np.unique(day)
    if len(days) < 2 or len(days) > MOST_VALUES:
        return {}
    epoch = dt.date(1970, 1, 1)
    return {f"day {epoch + dt.timedelta(days=int(d))}": day == d for d in days}


def _values(log: ScoredLog) -> dict[str, Mask]:
    """Return the most frequent values of every column asked for; the others together."""
    found: dict[str, Mask] = {}
    for name, keys in log.categories.items():
        values, counts = np.unique(keys, return_counts=True)
        top = values[np.argsort(-counts, kind="stable")[:MOST_VALUES]]
        called = log.names[name].called
        found |= {f"{name} {called.get(int(v), '(none)')}": keys == v for v in top}
        if len(values) > len(top):
            found[f"{name}: {len(values) - len(top)} others"] = ~np.isin(keys, top)
    return found
