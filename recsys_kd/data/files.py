"""Parquet files as they lie on disk: listing, checksums, and reading in bounded memory.

Measured on 60M narrow rows in one file: pyarrow's scanner with defaults peaks at 1.6 GB; one row group's pages at a
time through a buffered stream stay near 230 MB and are faster. A flipped bit in a file without page checksums comes
back as a silently wrong row in most cases, so checksums are verified where they are, and their absence is counted.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_kd.data.footer import BadFooter, all_pages_have_crc
from recsys_kd.errors import InputError, OutsideError

BATCH_ROWS = 65_536


class NoParquet(InputError):
    """The path holds no Parquet file."""


class BadFile(InputError):
    """A Parquet file is truncated, corrupt, or not Parquet."""

    def __init__(self, path: Path, why: str, more: str = ", or set data.on_bad_file: exclude") -> None:
        super().__init__(f"{path}: can't be read whole ({why}); write it again from its source{more}")
        self.path, self.why = path, why


class NoChecksums(InputError):
    """A file has no page checksums though the recipe requires them."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: has no page checksums, so flipped bytes would go unseen; write it with page checksums "
            "(pyarrow: write_page_checksum=True), or set data.require_checksums: false"
        )


def list_files(path: Path) -> list[Path]:
    """Return the Parquet files at `path` (a file, a folder, or hive partitions), sorted. Raises: NoParquet.

    Files and folders whose names start with `.` or `_` are left out: writers keep what is not finished there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise NoParquet(f"data.path: {path} does not exist; give a Parquet file or a folder of them")
    files = sorted(p for p in path.rglob("*.parquet") if p.is_file() and not _is_hidden(p.relative_to(path)))
    if not files:
        raise NoParquet(f"data.path: {path} holds no *.parquet file; give a Parquet file or a folder of them")
    return files


def _is_hidden(path: Path) -> bool:
    """Return whether a part of a path is hidden; `_day=3` is a partition, not hidden."""
    return any(part.startswith((".", "_")) and "=" not in part for part in path.parts)


def partition_values(path: Path, root: Path) -> dict[str, str | None]:
    """Return the hive partition columns that a file's folders name below `root`, as text; Hive's null is None."""
    parts = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    pairs = [part.split("=", 1) for part in parts if "=" in part]
    return {key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, value in pairs}


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open with page checksums verified. Raises: BadFile, OutsideError where the disk refuses."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20)
        file.schema_arrow.names  # noqa: B018 - decodes the names, which a flipped byte can make impossible
    except (PermissionError, FileNotFoundError) as error:
        raise OutsideError(f"{path}: {error.strerror}; make it readable for this user") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadFile(path, _first_line(error)) from None
    return file


def first_with_rows(path: Path) -> Path:
    """Return the first file of a log that holds rows, its first file where none does. Raises: NoParquet, BadFile."""
    files = list_files(path)
    return next((file for file in files if open_parquet(file).metadata.num_rows), files[0])


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Return columns of a small file as a whole. Raises: BadFile, OutsideError."""
    file = open_parquet(path)
    return pa.Table.from_batches(
        list(read_batches(file, path, columns)),
        pa.schema([file.schema_arrow.field(name) for name in dict.fromkeys(columns)]),
    )


def read_batches(file: pq.ParquetFile, path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield a file's batches, decoding the next one while the caller works on this one. Raises: BadFile."""
    batches = file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns), use_threads=True)
    rows = 0
    with ThreadPoolExecutor(1) as ahead:
        pending = ahead.submit(next, batches, None)
        while True:
            try:
                batch = pending.result()
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise BadFile(path, _first_line(error)) from None
            if batch is None:
                break
            pending = ahead.submit(next, batches, None)
            rows += batch.num_rows
            yield batch
    if rows != file.metadata.num_rows:
        raise BadFile(path, f"{rows} rows read, its footer says {file.metadata.num_rows}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def has_checksums(path: Path) -> bool:
    """Return whether the first page of every column of the first row group carries a CRC. Raises: BadFile."""
    try:
        return all_pages_have_crc(path)
    except BadFooter as error:
        raise BadFile(path, f"its footer {error}") from None


@contextmanager
def indispensable() -> Iterator[None]:
    """Of a file that nothing can go on without, say no more than that it is to be written again."""
    try:
        yield
    except BadFile as error:
        raise BadFile(error.path, error.why, "") from None


def catalogue_files(catalogue: Path | None) -> list[Path]:
    """Return the catalogue's file, if there is a catalogue. Raises: NoParquet where the file is missing."""
    if catalogue is not None and not catalogue.is_file():
        raise NoParquet(f"data.catalogue: there is no file {catalogue}; give a Parquet file with one row per item")
    return [] if catalogue is None else [catalogue]


def content_key(paths: Sequence[Path], root: Path) -> str:
    """Return a digest of names, sizes, times and footers: equal for unchanged input, at the cost of one small read."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        size, tail = content_tail(path)
        digest.update(f"{name}\0{size}\0{stat.st_mtime_ns}\0".encode())
        digest.update(tail)
    return digest.hexdigest()


def content_tail(path: Path) -> tuple[int, bytes]:
    """Return a file's size and its last bytes, in which its footer lies."""
    size = path.stat().st_size
    with path.open("rb") as raw:
        raw.seek(max(0, size - 65_536))
        return size, raw.read()
