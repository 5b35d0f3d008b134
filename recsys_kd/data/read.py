"""Two streaming passes over a log: `scan` checks, counts and finds duplicates; `usable` yields what may train.

Both passes see the same files (one that fails in the first is excluded whole from the second) in the same order, so
what the first has counted is what the second yields.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_kd.data.checks import Canonical, RowChecker
from recsys_kd.data.convert import TextKeys
from recsys_kd.data.counts import Counts
from recsys_kd.data.dedup import Deduplicator, HashSpill
from recsys_kd.data.drift import LogFile, as_wanted, family, widest
from recsys_kd.data.files import (
    BadFile,
    NoChecksums,
    catalogue_files,
    has_checksums,
    list_files,
    open_parquet,
    partition_values,
    read_batches,
)
from recsys_kd.data.layout import Layout, plan_layout
from recsys_kd.errors import InputError
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import DataConfig, SplitConfig


class NothingReadable(InputError):
    """Every file of the log is excluded or empty."""


@dataclass(frozen=True)
class Log:
    """The files of a log whose footers are sound, and how their columns are used."""

    config: DataConfig
    layout: Layout
    files: tuple[Path, ...]
    rows: int
    counts: Counts


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


def open_log(config: DataConfig, split: SplitConfig, extra: Mapping[str, str] | None = None) -> Log:
    """Check footers, columns and checksums of every file; rows are read only where a column may hold nothing.

    Files without rows are counted, and asked nothing.
    Raises: NoParquet, BadFile, NoChecksums, MissingColumn, WrongColumnType, SchemaDrift, NothingReadable.
    """
    counts, rows = Counts(), 0
    files: list[LogFile] = []
    catalogue = next((open_parquet(path).schema_arrow for path in catalogue_files(config.catalogue)), None)
    for path in list_files(config.path):
        counts.files += 1
        file = _sound(config, path, counts)
        if file is not None and file.metadata.num_rows:
            rows += file.metadata.num_rows
            files.append(LogFile(path, _with_partitions(file.schema_arrow, partition_values(path, config.path))))
    if not files:
        raise NothingReadable(f"data.path: {config.path} holds no rows in {counts.files} file(s); give a log with rows")
    layout = plan_layout(config, split, files, catalogue, dict(extra or {}))
    return Log(config, layout, tuple(f.path for f in files), rows, counts)


def _sound(config: DataConfig, path: Path, counts: Counts) -> pq.ParquetFile | None:
    """Open a file whose footer is sound and count what it lacks; None where it is excluded."""
    try:
        file = open_parquet(path)
        checked = file.metadata.num_rows == 0 or has_checksums(path)
    except BadFile:
        if config.on_bad_file == "stop":
            raise
        counts.excluded_files.append(str(path))
        return None
    if not checked and config.require_checksums:
        raise NoChecksums(path)
    counts.files_without_checksums += not checked
    counts.empty_files += file.metadata.num_rows == 0
    return file


def _with_partitions(schema: pa.Schema, partitions: Mapping[str, str | None]) -> pa.Schema:
    """Return a file's schema with its folders' columns, as text, where the file does not have them itself."""
    for name in partitions:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    return schema


def _whole_batches(log: Log, path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a file's batches with the columns that its folders name, and nulls for columns that hold nothing."""
    file = open_parquet(path)
    named = partition_values(path, log.config.path)
    schema, wanted = file.schema_arrow, log.layout.read_types
    inside = [c for c in log.layout.read if c in schema.names]
    other = [c for c in inside if family(schema.field(c).type) != family(wanted[c])]
    for batch in read_batches(file, path, inside):
        for name in other:
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, name, as_wanted(batch.column(at), wanted[name], path, name))
        for name in log.layout.read:
            if name not in inside:
                constant = pa.repeat(pa.scalar(named[name], pa.string()), batch.num_rows)
                batch = batch.append_column(name, constant)
        yield batch


class Quarantine:
    """Writes bad rows, with `reason`, `column`, `file` and `row`, to one Parquet file, made when the first one comes.

    Columns keep their type at its widest (files of one log may differ in width); a log column of one of these four
    names is stored as `log_<name>`. A file left by an earlier run is removed at the start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.unlink(missing_ok=True)
        self.writer: pq.ParquetWriter | None = None

    def add(
        self, batch: pa.RecordBatch, reason: NDArray[np.uint16], causes: list[tuple[str, str]], file: Path, start: int
    ) -> None:
        """Store the rows whose reason is not 0; `start` is the batch's first row in its file."""
        bad = np.flatnonzero(reason)
        added = {
            "reason": pa.array([causes[r][0] for r in reason[bad]], pa.string()),
            "column": pa.array([causes[r][1] for r in reason[bad]], pa.string()),
            "file": pa.array([str(file)] * len(bad), pa.string()),
            "row": pa.array(bad + start, pa.int64()),
        }
        picked = batch.take(pa.array(bad))
        columns = {
            f"log_{name}" if name in added else name: column.cast(widest(column.type))
            for name, column in zip(picked.schema.names, picked.columns, strict=True)
        }
        table = pa.table(columns | added)
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = pq.ParquetWriter(self.path, table.schema, write_page_checksum=True)
        self.writer.write_table(table)

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.writer is not None:
            self.writer.close()


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
                for batch in _file_batches(log, path, state.counts):
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


def _file_batches(log: Log, path: Path, counts: Counts) -> Iterator[pa.RecordBatch]:
    """Yield a file's batches; where bad files are excluded, first make sure that the whole file can be read."""
    if log.config.on_bad_file == "exclude":
        try:
            for _ in _whole_batches(log, path):
                pass
        except BadFile:
            counts.excluded_files.append(str(path))
            return
    yield from _whole_batches(log, path)


class _ScanState:
    def __init__(self, counts: Counts, spill: HashSpill, quarantine: Quarantine) -> None:
        self.counts, self.spill, self.quarantine = counts, spill, quarantine
        self.first_time, self.last_time, self.row = np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0

    def take(self, batch: pa.RecordBatch, rows: Canonical, causes: list[tuple[str, str]], path: Path) -> None:
        self.counts.read += batch.num_rows
        hashes, stamps = rows.hashes(), rows.timestamp
        if rows.reason is not None:
            self._count_bad(batch, rows.reason, causes, path)
            self.quarantine.add(batch, rows.reason, causes, path, self.row)
            good = rows.reason == 0
            hashes, stamps = hashes[good], stamps[good]
        self.row += batch.num_rows
        self.spill.add(hashes)
        if len(stamps):
            self.first_time = min(self.first_time, int(stamps.min()))
            self.last_time = max(self.last_time, int(stamps.max()))

    def _count_bad(
        self, batch: pa.RecordBatch, reason: NDArray[np.uint16], causes: list[tuple[str, str]], path: Path
    ) -> None:
        for code, rows in enumerate(np.bincount(reason)):
            if code and rows:
                why, column = causes[code]
                self.counts.quarantined[why] += int(rows)
                self.counts.worst[str(path), column, why] += int(rows)
                if (str(path), column, why) not in self.counts.first:
                    at = int(np.flatnonzero(reason == code)[0])
                    value = shown(batch.column(column)[at])
                    self.counts.first[str(path), column, why] = value, self.row + at

    def end_file(self) -> None:
        self.row = 0


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
    `contradicting` what of it had another label.
    """
    log, seen = found.log, Deduplicator(found.repeated)
    checker = RowChecker(log.config, log.layout, dict(found.text))
    found.text.clear()
    with progress.task("encode", log.rows) as task:
        for path in log.files:
            for batch in _whole_batches(log, path):
                rows = checker.check(batch)
                keep = _kept(rows, seen)
                yield (
                    (batch, rows) if keep is None else (batch.take(pa.array(np.flatnonzero(keep))), select(rows, keep))
                )
                task.advance(batch.num_rows)
    found.counts.deduplicated, found.counts.contradicting = seen.dropped, seen.contradicting


def _kept(rows: Canonical, seen: Deduplicator) -> NDArray[np.bool_] | None:
    """Return the mask of rows to keep, None where all are."""
    good = None if rows.reason is None else rows.reason == 0
    if len(seen.hashes) == 0:
        return good
    index = np.arange(len(rows.user)) if good is None else np.flatnonzero(good)
    again = seen.duplicates(rows.hashes()[index], tuple(c[index] for c in rows.event_keys), rows.label[index])
    keep = np.ones(len(rows.user), dtype=bool) if good is None else good
    keep[index[again]] = False
    return keep


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
