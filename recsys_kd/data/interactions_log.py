"""The rows of an imported log: one per candidate, requests in time order, with histories and joined columns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_kd.data.interactions_config import BadImport, ImportConfig, TestLists
from recsys_kd.data.interactions_events import Source, as_ids
from recsys_kd.data.interactions_join import check_kind
from recsys_kd.data.interactions_read import need, read_table
from recsys_kd.data.negatives import Events, draw_negatives, histories
from recsys_kd.progress import Progress

Ints = NDArray[np.int64]
_CHUNK_EVENTS = 50_000
_CELLS = 50_000 * 100**2
"""Drawing compares each negative of an event with all others: so many comparisons are held at once."""
_SPLITS = ("train", "validation", "test")


def takes_past(config: ImportConfig, events: Events) -> bool:
    """Return whether items that a user had before may be negatives."""
    if config.past_items != "auto":
        return config.past_items == "allow"
    return config.split == "time" and events.repeated > 0


class LogWriter:
    """Writes an import's requests; `part` is each event's split where it is by user, `people` columns by user code."""

    def __init__(
        self, config: ImportConfig, found: Source, part: NDArray[np.int8] | None, people: dict[str, pa.Array]
    ) -> None:
        self.config, self.events, self.part, self.people = config, found.events, part, people
        self.past = takes_past(config, found.events)
        # Arrow arrays, not NumPy's: taking no values from them keeps their type.
        self.users, self.items = pa.array(found.users.to_numpy()), pa.array(found.items.to_numpy())
        self.sequence, self.starts, self.ends = histories(found.events, config.history)

    def write(self, path: Path, lists: "Lists | None", progress: Progress) -> int:
        """Write the log in chunks of events, then the given lists, and return its rows."""
        rng, rows, n = np.random.default_rng(self.config.seed), 0, len(self.events.user)
        most = max(self.config.negatives, 0 if self.part is None else self.config.test_negatives)
        step = min(_CHUNK_EVENTS, max(1, _CELLS // most**2))
        writer: pq.ParquetWriter | None = None
        try:
            with progress.task("import", n, "events") as task:
                for start in range(0, n, step):
                    index = np.arange(start, min(start + step, n))
                    for table in self._tables(index, rng):
                        writer = writer or pq.ParquetWriter(path, table.schema, write_page_checksum=True)
                        writer.write_table(table)
                        rows += table.num_rows
                    task.advance(len(index))
                if lists is not None and writer is not None:
                    table = self._given(lists)
                    writer.write_table(table)
                    rows += table.num_rows
        finally:
            if writer is not None:
                writer.close()
        return rows

    def _tables(self, index: Ints, rng: np.random.Generator) -> list[pa.Table]:
        """Return the requests of events `index`: those held back, with more negatives, and those to train on."""
        held = np.zeros(len(index), dtype=bool) if self.part is None else self.part[index] > 0
        c, tables = self.config, []
        for chosen, count in ((index[held], c.test_negatives), (index[~held], c.negatives)):
            if len(chosen):
                drawn = draw_negatives(self.events, chosen, count, c.popular, c.catalogue_known, rng, self.past)
                tables.append(self._requests(chosen, drawn))
        return tables

    def _requests(self, index: Ints, drawn: Ints) -> pa.Table:
        """Return one row per candidate: the event's item first, then its negatives; -1 in `drawn` is "none left"."""
        candidates = np.concatenate([self.events.item[index][:, None], drawn], axis=1)
        real = candidates >= 0
        event = np.repeat(index, real.sum(axis=1))
        label = np.zeros(candidates.shape, dtype=np.int8)
        label[:, 0] = 1
        columns = {
            "item_id": self.items.take(pa.array(candidates[real])),
            "timestamp": pa.array(self.events.time[event]),
            "label": pa.array(label[real]),
            "request_id": pa.array(event),
        }
        split = None if self.part is None else self.part[event]
        return self._table(columns, self.events.user[event], self.starts[event], self.ends[event], split)

    def _given(self, lists: "Lists") -> pa.Table:
        """Return the given test requests, each user's whole history before them."""
        events, n = self.events, len(lists.user)
        order = np.lexsort((np.arange(len(events.user)), events.user))
        ends = np.searchsorted(events.user[order], lists.user, side="right").astype(np.int64)
        starts = np.searchsorted(events.user[order], lists.user, side="left").astype(np.int64)
        row = np.repeat(np.arange(n), lists.sizes)
        label = np.zeros(len(row), dtype=np.int8)
        label[np.cumsum(lists.sizes) - lists.sizes] = 1
        columns = {
            "item_id": lists.items.cast(self.items.type),
            "timestamp": pa.array(np.full(len(row), int(events.time.max()) + 1)),
            "label": pa.array(label),
            "request_id": pa.array(len(events.user) + row),
        }
        starts = np.maximum(starts, ends - self.config.history)
        return self._table(columns, lists.user[row], starts[row], ends[row], np.full(len(row), 2, dtype=np.int8))

    def _table(
        self, columns: dict[str, pa.Array], user: Ints, starts: Ints, ends: Ints, split: NDArray[np.int8] | None
    ) -> pa.Table:
        """Return the columns with user, history (`sequence` from `starts` to `ends`), joined columns and split."""
        lengths = ends - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        past = self.sequence[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)]
        history = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), self.items.take(pa.array(past)))
        out = {"user_id": self.users.take(pa.array(user)), **columns, "history": history}
        out |= {name: column.take(pa.array(user)) for name, column in self.people.items()}
        if split is not None:
            out["split"] = pa.array(np.array(_SPLITS)[split])
        return pa.table(out)


class Lists:
    """Given test requests: user codes [N], candidates per request [N], and all candidates, the held-out item first."""

    def __init__(self, user: Ints, sizes: Ints, items: pa.Array) -> None:
        self.user, self.sizes, self.items = user, sizes, items


def given_lists(lists: TestLists, found: Source) -> Lists:
    """Read the given test requests. Raises: BadImport where users, items or lists are missing or of another kind."""
    where = str(lists.path)
    frame = read_table(lists.path, ("user_id", "item_id"))
    others = need(frame, lists.negatives, "test_lists.negatives", where)
    positive, users = (need(frame, name, "test_lists.path", where) for name in ("item_id", "user_id"))
    for name in ("user_id", "item_id", lists.negatives):
        if frame[name].isna().any():
            raise BadImport(f"{where}: {int(frame[name].isna().sum())} rows have no '{name}'; remove them")
    keys = pd.Index(as_ids(users, f"{where}: 'user_id'"))
    check_kind(keys, found.users, f"{where}: column 'user_id'")
    code = found.users.get_indexer(keys)
    if (code < 0).any():
        raise BadImport(f"{where}: {int((code < 0).sum())} users are not in the source; check `columns.user`")
    first = as_ids(positive, f"{where}: 'item_id'")
    candidates = pd.Series([x for p, rest in zip(first, others, strict=True) for x in (p, *rest)])
    ids = as_ids(candidates, f"{where}: 'item_id' and '{lists.negatives}'")
    check_kind(pd.Index(ids), found.items, f"{where}: column '{lists.negatives}'")
    sizes = np.array([1 + len(rest) for rest in others], dtype=np.int64)
    return Lists(code.astype(np.int64), sizes, pa.array(ids.to_numpy()))
