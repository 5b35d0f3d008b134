"""Exact global duplicate detection in bounded memory.

Pass 1 spills every event's 64-bit hash into bucket files by its high bits and sorts one bucket at a time; the hashes
that occur twice are few. Pass 2 keeps the exact keys of those few only, so equal hashes of different events stay apart.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
_FLUSH_ROWS = 1 << 20


class HashSpill:
    """Collects hashes on disk; `repeated` returns those seen more than once, sorted."""

    def __init__(self, folder: Path, expected_rows: int) -> None:
        self.bits = max(0, min(10, int(np.ceil(np.log2(max(expected_rows, 1) / 2_000_000 + 1)))))
        self.paths = [folder / f"hashes-{i}.bin" for i in range(1 << self.bits)]
        self.files = [p.open("wb") for p in self.paths]
        self.buffer = np.empty(_FLUSH_ROWS, dtype=np.uint64)
        self.held = 0
        # NumPy sorts without the GIL: one thread sorts and writes a block while the next one is read and checked.
        self.writer = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None

    def add(self, hashes: Keys) -> None:
        """Take the hashes of one batch."""
        if self.held + len(hashes) > _FLUSH_ROWS:
            self._flush()
        self.buffer[self.held : self.held + len(hashes)] = hashes.view(np.uint64)
        self.held += len(hashes)

    def _flush(self) -> None:
        block, self.buffer = self.buffer[: self.held], np.empty(_FLUSH_ROWS, dtype=np.uint64)
        self.held = 0
        self._written()
        self.writing = self.writer.submit(self._write, block)

    def _written(self) -> None:
        if self.writing is not None:
            self.writing.result()

    def _write(self, block: NDArray[np.uint64]) -> None:
        if self.bits == 0:
            self.files[0].write(block.data)
            return
        # NumPy sorts 8- and 16-bit integers by radix: four times faster than sorting the hashes themselves.
        bucket = (block >> np.uint64(64 - self.bits)).astype(np.uint8 if self.bits <= 8 else np.uint16)
        ordered = block[np.argsort(bucket, kind="stable")]
        cuts = np.cumsum(np.bincount(bucket, minlength=len(self.files)))[:-1]
        for file, part in zip(self.files, np.split(ordered, cuts), strict=True):
            file.write(part.data)

    def __enter__(self) -> "HashSpill":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.writer.shutdown()
        for file in self.files:
            file.close()

    def repeated(self) -> tuple[Keys, int]:
        """Return the repeated hashes and how many rows are duplicates of an earlier one; removes the files."""
        self._flush()
        self._written()
        for file in self.files:
            file.close()
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(_repeated_in, self.paths))
        hashes = np.concatenate([values for values, _ in found])
        return np.sort(hashes.view(np.int64)), sum(extra for _, extra in found)


def _repeated_in(path: Path) -> tuple[NDArray[np.uint64], int]:
    """Return a bucket's repeated hashes and how many of its rows repeat another; removes the file."""
    values = np.fromfile(path, dtype=np.uint64)
    path.unlink()
    values.sort()
    same = values[1:] == values[:-1]
    return np.unique(values[1:][same]), int(same.sum())


class Deduplicator:
    """Pass 2: says which rows repeat an event that came before; `hashes` are those found by `HashSpill`."""

    def __init__(self, hashes: Keys) -> None:
        self.hashes = hashes
        self.seen: set[tuple[int, ...]] = set()

    def duplicates(self, hashes: Keys, key_columns: tuple[Keys, ...]) -> NDArray[np.bool_]:
        """Return a mask [N] of later occurrences; the first stays."""
        mask = np.zeros(len(hashes), dtype=bool)
        if len(self.hashes) == 0:
            return mask
        at = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        for row in np.flatnonzero(self.hashes[at] == hashes):
            key = tuple(int(column[row]) for column in key_columns)
            mask[row] = key in self.seen
            self.seen.add(key)
        return mask
