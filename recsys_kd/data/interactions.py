"""Import: interaction tables that are not ranking logs become ones that are.

Each positive event becomes a request: the event's item and sampled negatives. Nothing of the future is used: negatives
are items that have appeared by then, the user's own items are excluded only up to this event, a history holds items of
strictly earlier times. Popular negatives are drawn as the items of earlier events, so popularity is that of the time.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from recsys_kd.data.interactions_config import BadImport, ImportConfig, ImportResult
from recsys_kd.data.interactions_log import write_items, write_log
from recsys_kd.data.interactions_read import clean, need, read_table
from recsys_kd.data.negatives import Events
from recsys_kd.progress import SILENT, Progress

Ints = NDArray[np.int64]


def _times(config: ImportConfig, frame: pd.DataFrame) -> Ints:
    """Return seconds UTC (or the order, where there is no time)."""
    if config.columns.order is not None:
        return need(frame, config.columns.order, str(config.source)).to_numpy(dtype=np.int64)
    values = need(frame, config.columns.time or "", str(config.source))
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=np.int64)
    parsed = pd.to_datetime(values, errors="coerce", utc=True)
    if parsed.isna().any():
        bad = values[parsed.isna()].iloc[0]
        raise BadImport(f"{config.source}: columns.time: '{bad}' is not a date; drop such rows by a rule")
    return parsed.to_numpy(dtype="datetime64[s]").astype(np.int64)


def _ids(values: pd.Series) -> pd.Series:
    """Return ids as they are meant: a column with gaps reads as floats, 13085.0 for 13085."""
    if pd.api.types.is_float_dtype(values) and (values % 1 == 0).all():
        return values.astype("int64")
    return values


def _k_core(frame: pd.DataFrame, column: str, least: int, dropped: Counter[str]) -> pd.DataFrame:
    if least <= 1:
        return frame
    keep = frame.groupby(column)[column].transform("size") >= least
    dropped[f"fewer than {least} rows of one {column}"] += int((~keep).sum())
    return frame[keep]


def _events(config: ImportConfig) -> tuple[Events, dict[str, int], int, pd.Index, pd.Index]:
    """Return cleaned events in time order, counts, rows read, and the raw ids of users and items by code."""
    found = clean(read_table(config.source), config.drop, str(config.source))
    where = str(config.source)
    frame = pd.DataFrame(
        {
            "user": _ids(need(found.rows, config.columns.user, where)),
            "item": _ids(need(found.rows, config.columns.item, where)),
            "time": _times(config, found.rows),
        }
    )
    if config.drop_duplicates:
        again = frame.duplicated()
        found.dropped["duplicate"] += int(again.sum())
        frame = frame[~again]
    frame = _k_core(_k_core(frame, "item", config.min_item, found.dropped), "user", config.min_user, found.dropped)
    if frame.empty:
        raise BadImport(f"{where}: no rows are left of {found.read:,}; loosen `drop`, `min_user` or `min_item`")
    frame = frame.sort_values(["time", "user"], kind="stable")
    user, users = pd.factorize(frame["user"])
    item, items = pd.factorize(frame["item"])
    events = Events(user.astype(np.int64), item.astype(np.int64), frame["time"].to_numpy(), len(items))
    assert found.read == len(events.user) + sum(found.dropped.values()), "rows dropped do not add up"
    return events, dict(found.dropped), found.read, users, items


def import_interactions(config: ImportConfig, out: Path, progress: Progress = SILENT) -> ImportResult:
    """Write log.parquet, items.parquet (where items are joined), import.json and recipe.yaml into `out`."""
    events, dropped, read, users, items = _events(config)
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(config.seed)
    part = _splits(config, events)
    rows = write_log(config, events, part, users, items, out, rng, progress)
    if config.items is not None:
        write_items(config.items, out)
    result = ImportResult(out, read, len(events.user), dropped, rows)
    (out / "import.json").write_text(
        json.dumps({"read": read, "events": result.events, "dropped": dropped, "rows": rows}, indent=1)
    )
    (out / "recipe.yaml").write_text(yaml.safe_dump(_recipe(config), sort_keys=False))
    return result


def _splits(config: ImportConfig, events: Events) -> NDArray[np.int8] | None:
    """Return 0 train, 1 validation, 2 test per event for splits by user; None for a split by time."""
    if config.split == "time":
        return None
    last = np.zeros(len(events.user), dtype=np.int64)
    order = np.lexsort((np.arange(len(events.user)), events.user))
    user = events.user[order]
    ends = np.append(np.flatnonzero(user[1:] != user[:-1]), len(user) - 1)
    size = np.diff(np.append(-1, ends))
    last[order] = np.repeat(ends, size) - np.arange(len(user))
    part = np.zeros(len(events.user), dtype=np.int8)
    if config.split == "lists":
        part[last == 0] = 1
    else:
        part[last == 1] = 1
        part[last == 0] = 2
    return part


def _recipe(config: ImportConfig) -> dict[str, Any]:
    history = {
        "name": "history",
        "side": "request",
        "kind": "bag",
        "vocabulary": "item_id",
        "max_length": config.history,
    }
    fields: list[dict[str, Any]] = [history]
    if config.users is not None:
        fields += [{"name": f"user_{n}", "side": "request", "kind": k} for n, k in config.users.columns.items()]
    data: dict[str, Any] = {"path": "log.parquet", "columns": {"request_id": "request_id"}, "fields": fields}
    if config.items is not None:
        data["catalogue"] = "items.parquet"
        fields += [{"name": n, "side": "item", "kind": k} for n, k in config.items.columns.items()]
    split: dict[str, Any] = {"column": "split"}
    if config.split == "time":
        split = {"validation_days": config.validation_days, "test_days": config.test_days}
    return {"name": config.name, "seed": config.seed, "data": data, "split": split, **config.recipe}
