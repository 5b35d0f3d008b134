"""Import: interaction tables that are not ranking logs become ones that are.

Each positive event becomes a request: the event's item and sampled negatives. Nothing of the future is used: negatives
are items that have appeared by then, the user's own items are excluded only up to this event, a history holds items of
strictly earlier times. Popular negatives are drawn as the items of earlier events, so popularity is that of the time.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from recsys_kd.data.interactions_read import DropRule, SourceColumns, clean, need, read_table
from recsys_kd.data.negatives import Events, draw_negatives, histories
from recsys_kd.errors import InputError
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import StrictConfig, explain

Ints = NDArray[np.int64]
_CHUNK_EVENTS = 50_000


class BadImport(InputError):
    """The import can't be done as it is configured."""


class SideTable(StrictConfig):
    """A table joined by user or item: its key and the columns to take, with their kind."""

    path: Path
    key: str
    columns: dict[str, Literal["categorical", "dense"]]


class TestLists(StrictConfig):
    """Given test requests: one row per user with the held-out item and a list of negatives."""

    path: Path
    negatives: str = "negatives"


class ImportConfig(StrictConfig):
    """What the source is and how it becomes a log."""

    name: str
    source: Path
    columns: SourceColumns
    drop: tuple[DropRule, ...] = ()
    drop_duplicates: bool = True
    min_user: int = Field(1, ge=1)
    min_item: int = Field(1, ge=1)
    items: SideTable | None = None
    users: SideTable | None = None
    negatives: int = Field(4, ge=1)
    test_negatives: int = Field(99, ge=1)
    popular: float = Field(0.5, ge=0, le=1)
    """Share of negatives drawn by popularity; the others are uniform."""
    catalogue_known: bool = False
    """All items may be shown from the start (sets without global time), not only those that have appeared."""
    history: int = Field(20, ge=1)
    split: Literal["time", "leave_one_out", "lists"] = "time"
    test_days: float = Field(7, gt=0)
    validation_days: float = Field(7, gt=0)
    test_lists: TestLists | None = None
    seed: int = 7
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Sections of the recipe to write, over the defaults."""


@dataclass(frozen=True)
class ImportResult:
    """read = events + dropped; rows are those of the log."""

    folder: Path
    read: int
    events: int
    dropped: dict[str, int]
    rows: int

    @property
    def recipe(self) -> Path:
        """A recipe that runs as it is."""
        return self.folder / "recipe.yaml"


def load_import(path: Path, base: Path | None = None) -> ImportConfig:
    """Read an import's YAML; sources lie under `base` (the file's folder where absent). Raises: BadImport."""
    try:
        data = yaml.safe_load(path.read_text())
        config = ImportConfig.model_validate(data)
    except OSError as error:
        raise BadImport(f"{path}: can't be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise BadImport(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise BadImport(explain(error, str(path))) from None
    root = base or path.resolve().parent

    def under(side: Any) -> Any:
        return side and side.model_copy(update={"path": root / side.path})

    return config.model_copy(
        update={
            "source": root / config.source,
            "items": under(config.items),
            "users": under(config.users),
            "test_lists": under(config.test_lists),
        }
    )


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
    rows = _write_log(config, events, part, users, items, out, rng, progress)
    if config.items is not None:
        _write_items(config.items, out)
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


def _write_log(
    config: ImportConfig,
    events: Events,
    part: NDArray[np.int8] | None,
    users: pd.Index,
    items: pd.Index,
    out: Path,
    rng: np.random.Generator,
    progress: Progress,
) -> int:
    past = histories(events, config.history)
    joined = _user_columns(config, users)
    writer: pq.ParquetWriter | None = None
    rows = 0
    try:
        with progress.task("import", len(events.user), "events") as task:
            for start in range(0, len(events.user), _CHUNK_EVENTS):
                index = np.arange(start, min(start + _CHUNK_EVENTS, len(events.user)))
                for wanted, count in ((True, config.test_negatives), (False, config.negatives)):
                    held = np.zeros(len(index), dtype=bool) if part is None else part[index] > 0
                    chosen = index[held == wanted]
                    if len(chosen) == 0:
                        continue
                    drawn = draw_negatives(events, chosen, count, config.popular, config.catalogue_known, rng)
                    table = _table(events, chosen, drawn, past, part, users, items, joined)
                    writer = writer or pq.ParquetWriter(out / "log.parquet", table.schema, write_page_checksum=True)
                    writer.write_table(table)
                    rows += table.num_rows
                task.advance(len(index))
            if config.split == "lists" and config.test_lists is not None and writer is not None:
                table = _given_lists(config.test_lists, events, users, items, joined, config.history)
                writer.write_table(table)
                rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _table(
    events: Events,
    index: Ints,
    drawn: Ints,
    past: tuple[Ints, Ints, Ints],
    part: NDArray[np.int8] | None,
    users: pd.Index,
    items: pd.Index,
    joined: dict[str, pa.Array],
) -> pa.Table:
    """Return one row per candidate: the event's item first, then its negatives; -1 in `drawn` is "none left"."""
    candidates = np.concatenate([events.item[index][:, None], drawn], axis=1)
    real = candidates >= 0
    event = np.repeat(index, real.sum(axis=1))
    label = np.zeros(candidates.shape, dtype=np.int8)
    label[:, 0] = 1
    sequence, starts, ends = past
    lengths = (ends - starts)[event]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = sequence[np.arange(offsets[-1]) + np.repeat(starts[event] - offsets[:-1], lengths)]
    columns = {
        "user_id": pa.array(users.to_numpy()[events.user[event]]),
        "item_id": pa.array(items.to_numpy()[candidates[real]]),
        "timestamp": pa.array(events.time[event]),
        "label": pa.array(label[real]),
        "request_id": pa.array(event),
        "history": pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(items.to_numpy()[values])),
    }
    columns |= {name: array.take(pa.array(events.user[event])) for name, array in joined.items()}
    if part is not None:
        columns["split"] = pa.array(np.array(["train", "validation", "test"])[part[event]])
    return pa.table(columns)


def _given_lists(
    lists: TestLists, events: Events, users: pd.Index, items: pd.Index, joined: dict[str, pa.Array], limit: int
) -> pa.Table:
    """Return the given test requests, each user's whole history before them."""
    frame = read_table(lists.path)
    negatives = need(frame, lists.negatives, str(lists.path))
    code = users.get_indexer(pd.Index(need(frame, "user_id", str(lists.path))))
    if (code < 0).any():
        raise BadImport(f"{lists.path}: {int((code < 0).sum())} users are not in the source; check `columns.user`")
    order = np.lexsort((np.arange(len(events.user)), events.user))
    ends = np.searchsorted(events.user[order], np.arange(len(users)), side="right")
    sizes = np.minimum(np.bincount(events.user, minlength=len(users)), limit)
    raw = items.to_numpy()
    rows: dict[str, list[Any]] = {n: [] for n in ("user_id", "item_id", "timestamp", "label", "request_id", "history")}
    last = int(events.time.max()) + 1
    for i, (u, positive, others) in enumerate(zip(code, frame["item_id"], negatives, strict=True)):
        candidates = [positive, *others]
        history = raw[events.item[order[ends[u] - sizes[u] : ends[u]]]].tolist()
        rows["user_id"] += [users[int(u)]] * len(candidates)
        rows["item_id"] += candidates
        rows["timestamp"] += [last] * len(candidates)
        rows["label"] += [1] + [0] * len(others)
        rows["request_id"] += [len(events.user) + i] * len(candidates)
        rows["history"] += [history] * len(candidates)
    columns = {name: pa.array(values) for name, values in rows.items()}
    columns["label"] = columns["label"].cast(pa.int8())
    repeated = np.repeat(code, [1 + len(n) for n in negatives])
    columns |= {name: array.take(pa.array(repeated)) for name, array in joined.items()}
    columns["split"] = pa.array(["test"] * len(rows["user_id"]))
    return pa.table(columns)


def _user_columns(config: ImportConfig, users: pd.Index) -> dict[str, pa.Array]:
    if config.users is None:
        return {}
    frame = read_table(config.users.path)
    at = pd.Index(need(frame, config.users.key, str(config.users.path))).get_indexer(users)
    out = {}
    for name in config.users.columns:
        values = need(frame, name, str(config.users.path))
        out[f"user_{name}"] = pa.array(values.to_numpy()[at], mask=at < 0)
    return out


def _write_items(side: SideTable, out: Path) -> None:
    frame = read_table(side.path)
    columns = {"item_id": need(frame, side.key, str(side.path))}
    columns |= {name: need(frame, name, str(side.path)) for name in side.columns}
    table = pa.Table.from_pandas(pd.DataFrame(columns).drop_duplicates("item_id"), preserve_index=False)
    pq.write_table(table, out / "items.parquet", write_page_checksum=True)


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
