"""Import: interaction tables that are not ranking logs become ones that are.

Each positive event becomes a request: the event's item and sampled negatives. Nothing of the future is used: negatives
are items that have appeared by then, the user's own items are excluded only up to this event, a history holds items of
strictly earlier times. Popular negatives are drawn as the items of earlier events, so popularity is that of the time.

Where users have items again, what a user had before may be a negative too. Else every candidate in the history would
be a positive, and a model learns this rule of the sampling instead of how often an item is had again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from recsys_kd.data.interactions_config import BadImport, ImportConfig, ImportResult
from recsys_kd.data.interactions_events import read_events
from recsys_kd.data.interactions_join import Joined
from recsys_kd.data.interactions_log import LogWriter, given_lists, takes_past
from recsys_kd.data.negatives import Events
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import parse_recipe


def import_interactions(config: ImportConfig, out: Path, progress: Progress = SILENT) -> ImportResult:
    """Write log.parquet, items.parquet (where items are joined), import.json and recipe.yaml into `out`.

    Raises: InputError subclasses for anything wrong with the settings or a source, before `out` is made.
    """
    recipe = _recipe(config)
    parse_recipe(recipe, str(out / "recipe.yaml"), out)
    found = read_events(config)
    _check_negatives(config, found.events.items)
    for line in (*found.notes, *_of_repeats(config, found.events)):
        progress.note(line)
    sides = {"users": (config.users, found.users), "items": (config.items, found.items)}
    joined = {name: Joined(side, ids, name) for name, (side, ids) in sides.items() if side is not None}
    people = {f"user_{n}": column for n, column in joined["users"].by_code().items()} if "users" in joined else {}
    lists = None if config.test_lists is None else given_lists(config.test_lists, found)
    out.mkdir(parents=True, exist_ok=True)
    rows = LogWriter(config, found, _splits(config, found.events), people).write(out / "log.parquet", lists, progress)
    if "items" in joined:
        joined["items"].write(out / "items.parquet")
    unmatched = {name: side.unmatched for name, side in joined.items()}
    result = ImportResult(
        out, found.read, len(found.events.user), found.dropped, rows, unmatched, found.events.repeated
    )
    counts = {"read": found.read, "events": result.events, "dropped": found.dropped, "rows": rows}
    (out / "import.json").write_text(
        json.dumps({**counts, "unmatched": unmatched, "repeated": result.repeated}, indent=1)
    )
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return result


def _check_negatives(config: ImportConfig, items: int) -> None:
    """Raise BadImport where a request is to show more items than there are."""
    wanted = {"negatives": config.negatives}
    if config.split != "time":
        wanted["test_negatives"] = config.test_negatives
    for key, count in wanted.items():
        if count >= items:
            raise BadImport(
                f"{key}: {count:,} beside each event's own item, of {items:,} items in all; give {items - 1:,} at most"
            )


def _of_repeats(config: ImportConfig, events: Events) -> list[str]:
    """Return what there is to say of users who have an item again."""
    if not events.repeated:
        return []
    told = f"{events.repeated:,} of {len(events.user):,} events are of an item that their user had before"
    if takes_past(config, events):
        return [f"{told}: negatives may be such items too (`past_items: exclude` leaves them out)"]
    return [
        f"warning: {told}, and no negative is: a candidate in the history is always a positive, which a model learns; "
        "`past_items: allow` lets such items be negatives"
    ]


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
    data: dict[str, Any] = {
        "path": "log.parquet",
        "columns": {"request_id": "request_id"},
        "timestamp_unit": "ms",
        "fields": fields,
    }
    if config.items is not None:
        data["catalogue"] = "items.parquet"
        fields += [{"name": n, "side": "item", "kind": k} for n, k in config.items.columns.items()]
    split: dict[str, Any] = {"column": "split"}
    if config.split == "time":
        split = {"validation_days": config.validation_days, "test_days": config.test_days}
    return {"name": config.name, "seed": config.seed, "data": data, "split": split, **config.recipe}
