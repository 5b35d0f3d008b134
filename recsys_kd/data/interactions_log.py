"""The rows of an imported log: one per candidate, requests in time order, with histories and joined columns."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_kd.data.interactions_config import BadImport, ImportConfig, SideTable, TestLists
from recsys_kd.data.interactions_read import need, read_table
from recsys_kd.data.negatives import Events, draw_negatives, histories
from recsys_kd.progress import Progress

Ints = NDArray[np.int64]
_CHUNK_EVENTS = 50_000


def write_log(
    config: ImportConfig,
    events: Events,
    part: NDArray[np.int8] | None,
    users: pd.Index,
    items: pd.Index,
    out: Path,
    rng: np.random.Generator,
    progress: Progress,
) -> int:
    """Write log.parquet in chunks of events and return its rows; `part` is each event's split where it is by user."""
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


def write_items(side: SideTable, out: Path) -> None:
    """Write items.parquet, the catalogue: one row per item with the joined columns."""
    frame = read_table(side.path)
    columns = {"item_id": need(frame, side.key, str(side.path))}
    columns |= {name: need(frame, name, str(side.path)) for name in side.columns}
    table = pa.Table.from_pandas(pd.DataFrame(columns).drop_duplicates("item_id"), preserve_index=False)
    pq.write_table(table, out / "items.parquet", write_page_checksum=True)
