"""Two streaming passes over a log: `scan` checks, counts and finds duplicates; `usable` yields what may train.

Both passes see the same files (one that fails in the first is excluded whole from the second) in the same order, so
what the first has counted is what the second yields.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.data.checks import Canonical, RowChecker
from recsys_kd.data.convert import TextKeys
from recsys_kd.data.counts import Counts
from recsys_kd.data.dedup import Deduplicator, HashSpill
from recsys_kd.data.log import Log, file_batches, whole_batches
from recsys_kd.data.quarantine import Quarantine
from recsys_kd.ids import mix
from recsys_kd.progress import SILENT, Progress


@dataclass(frozen=True)
class Scan:
    """What the first pass found."""

    log: Log
    counts: Counts
    repeated: NDArray[np.int64]
    first_time: int
    last_time: int
    text: dict[str, TextKeys]
    """Keys of string ids that the next pass need not make again; it empties this, for they are many."""

    @property
    def event_columns(self) -> list[str]:
        """The log columns that identify an event."""
        columns = self.log.layout.columns
        return [columns[name] for name in ("user_id", "item_id", "timestamp", "request_id") if name in columns]

    def check(self, quarantine: str) -> None:
        """Raise TooManyBadRows or TooManyDuplicates if the log has more than its configuration allows."""
        config = self.log.config
        self.counts.check_threshold(config.max_quarantine, quarantine)
        self.counts.check_duplicates(config.max_duplicates, self.event_columns)


def scan(log: Log, quarantine: Path, scratch: Path, progress: Progress = SILENT) -> Scan:
    """Read every row once: check it, count it, hash its event. Raises: BadFile.

    Hashes lie in the folder `scratch` meanwhile, 8 bytes a row; nothing is left there.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="hashes-", dir=scratch) as folder,
        HashSpill(Path(folder), log.rows) as spill,
        Quarantine(quarantine) as bin_,
    ):
        state = _ScanState(log.counts, spill, bin_)
        checker = RowChecker(log.config, log.layout)
        with progress.task("read", log.rows) as task:
            for path in log.files:
                for batch in file_batches(log, path, state.counts):
                    state.take(batch, checker.check(batch), checker.causes, path)
                    task.advance(batch.num_rows, quarantined=state.counts.bad)
                state.end_file()
        for text in checker.text.values():
            text.check_collisions()
        repeated, extra = spill.repeated()
    counts = state.counts
    counts.deduplicated = extra
    counts.used = counts.read - counts.bad - extra
    good = tuple(p for p in log.files if str(p) not in counts.excluded_files)
    kept = Log(log.config, log.layout, good, log.rows, counts)
    return Scan(kept, counts, repeated, state.first_time, state.last_time, checker.text)


class _ScanState:
    def __init__(self, counts: Counts, spill: HashSpill, quarantine: Quarantine) -> None:
        self.counts, self.spill, self.quarantine = counts, spill, quarantine
        self.first_time, self.last_time, self.row = np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0

    def take(self, batch: pa.RecordBatch, rows: Canonical, causes: list[tuple[str, str]], path: Path) -> None:
        self.counts.read += batch.num_rows
        hashes, stamps = rows.hashes(), rows.timestamp
        if rows.reason is not None:
            count_bad(self.counts, batch, rows.reason, causes, path, self.row)
            self.quarantine.add(batch, rows.reason, causes, path, self.row)
            good = rows.reason == 0
            hashes, stamps = hashes[good], stamps[good]
        self.row += batch.num_rows
        self.spill.add(hashes)
        if len(stamps):
            self.first_time = min(self.first_time, int(stamps.min()))
            self.last_time = max(self.last_time, int(stamps.max()))

    def end_file(self) -> None:
        self.row = 0


def count_bad(
    counts: Counts,
    batch: pa.RecordBatch,
    reason: NDArray[np.uint16],
    causes: list[tuple[str, str]],
    path: Path,
    start: int,
) -> None:
    """Count a batch's bad rows, those whose reason is not 0; `start` is the batch's first row in its file."""
    for code, rows in enumerate(np.bincount(reason)):
        if code and rows:
            why, column = causes[code]
            counts.quarantined[why] += int(rows)
            counts.worst[str(path), column, why] += int(rows)
            if (str(path), column, why) not in counts.first:
                at = int(np.flatnonzero(reason == code)[0])
                counts.first[str(path), column, why] = shown(batch.column(column)[at]), start + at


def shown(value: pa.Scalar, most: int = 60) -> str:
    """Return a value as a message shows it: short, and also where it is text that isn't UTF-8."""
    try:
        told = "null" if not value.is_valid else repr(value.as_py())
    except UnicodeDecodeError:
        told = "text that is not UTF-8"
    return told if len(told) <= most else f"{told[: most - 3]}..."


def usable(found: Scan, progress: Progress = SILENT) -> Iterator[tuple[pa.RecordBatch, Canonical]]:
    """Second pass: yield the rows that are neither bad nor duplicates, in the same order.

    At its end `deduplicated` is what this pass has dropped by exact key (`scan` can only count equal hashes), and
    `contradicting` what of it had another label, `differing` another number (a score, a position, ..).
    """
    log, seen = found.log, Deduplicator(found.repeated)
    checker = RowChecker(log.config, log.layout, dict(found.text))
    found.text.clear()
    with progress.task("encode", log.rows) as task:
        for path in log.files:
            for batch in whole_batches(log, path):
                rows = checker.check(batch)
                keep = _kept(rows, seen)
                yield (
                    (batch, rows) if keep is None else (batch.take(pa.array(np.flatnonzero(keep))), select(rows, keep))
                )
                task.advance(batch.num_rows)
    found.counts.deduplicated = seen.dropped
    found.counts.contradicting, found.counts.differing = seen.contradicting


def _kept(rows: Canonical, seen: Deduplicator) -> NDArray[np.bool_] | None:
    """Return the mask of rows to keep, None where all are."""
    good = None if rows.reason is None else rows.reason == 0
    if len(seen.hashes) == 0:
        return good
    index = np.arange(len(rows.user)) if good is None else np.flatnonzero(good)
    said = rows.label[index], _numbers(rows, index)
    again = seen.duplicates(rows.hashes()[index], tuple(c[index] for c in rows.event_keys), said)
    keep = np.ones(len(rows.user), dtype=bool) if good is None else good
    keep[index[again]] = False
    return keep


def _numbers(rows: Canonical, index: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return a hash of all numbers of some rows: equal where they are."""
    columns = [np.zeros(len(index), dtype=np.int64)]
    columns += [values[index].astype(np.float64).view(np.int64) for values in rows.numbers.values()]
    return mix(*columns)


def select(rows: Canonical, keep: NDArray[np.bool_]) -> Canonical:
    """Return the rows of a mask."""
    return Canonical(
        rows.user[keep],
        rows.item[keep],
        rows.timestamp[keep],
        rows.label[keep],
        None if rows.request is None else rows.request[keep],
        {n: v[keep] for n, v in rows.numbers.items()},
        {n: v[keep] for n, v in rows.vectors.items()},
        None,
    )
