"""A log as it lies on disk: the files whose footers are sound, and their rows with the columns that are used."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_kd.data.counts import Counts, excluded_told
from recsys_kd.data.drift import LogFile, as_wanted, family
from recsys_kd.data.files import (
    BadFile,
    NoChecksums,
    catalogue_files,
    has_checksums,
    indispensable,
    list_files,
    open_parquet,
    partition_values,
    read_batches,
)
from recsys_kd.data.layout import Layout, plan_layout
from recsys_kd.errors import InputError
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


def open_log(config: DataConfig, split: SplitConfig, extra: Mapping[str, str] | None = None) -> Log:
    """Check footers, columns and checksums of every file; rows are read only where a column may hold nothing.

    Files without rows are counted, and asked nothing.
    Raises: NoParquet, BadFile, NoChecksums, MissingColumn, WrongColumnType, SchemaDrift, NothingReadable.
    """
    counts, rows = Counts(), 0
    files: list[LogFile] = []
    catalogue = _catalogue(config, counts)
    for path in list_files(config.path):
        counts.files += 1
        file = _sound(config, path, counts)
        if file is not None and file.metadata.num_rows:
            rows += file.metadata.num_rows
            files.append(LogFile(path, _with_partitions(file.schema_arrow, partition_values(path, config.path))))
    if not files:
        why = f"; {excluded_told(counts.excluded_files)}" if counts.excluded_files else ""
        raise NothingReadable(
            f"data.path: {config.path} holds no rows in {counts.files} file(s){why}; give a log with rows"
        )
    layout = plan_layout(config, split, files, catalogue, dict(extra or {}))
    return Log(config, layout, tuple(f.path for f in files), rows, counts)


def _catalogue(config: DataConfig, counts: Counts) -> pa.Schema | None:
    """Return the catalogue's columns, None where there is none, and count that it has no checksums."""
    for path in catalogue_files(config.catalogue):
        with indispensable():
            file = open_parquet(path)
            checked = file.metadata.num_rows == 0 or has_checksums(path)
        if not checked and config.require_checksums:
            raise NoChecksums(path)
        counts.unchecked_catalogue = not checked
        return file.schema_arrow
    return None


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


def whole_batches(log: Log, path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a file's batches with the columns that its folders name, and nulls for columns that hold nothing.

    Raises: BadFile.
    """
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


def file_batches(log: Log, path: Path, counts: Counts) -> Iterator[pa.RecordBatch]:
    """Yield a file's batches; where bad files are excluded, first make sure that the whole file can be read."""
    if log.config.on_bad_file == "exclude":
        try:
            for _ in whole_batches(log, path):
                pass
        except BadFile:
            counts.excluded_files.append(str(path))
            return
    yield from whole_batches(log, path)
