"""Exact global duplicate detection in bounded memory.

Pass 1 spills every event's 64-bit hash into bucket files by its high bits and sorts one bucket at a time; the hashes
that occur twice are few. Pass 2 keeps the exact keys of those few only, so equal hashes of different events stay apart.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
_FLUSH_ROWS = 1 << 20


class HashSpill:
    """Collects hashes on disk; `repeated` returns those seen more than once, sorted."""

    def __init__(self, folder: Path, expected_rows: int) -> None:
        self.bits = max(0, min(12, int(np.ceil(np.log2(max(expected_rows, 1) / 2_000_000 + 1)))))
        self.paths = [folder / f"hashes-{i}.bin" for i in range(1 << self.bits)]
        for path in self.paths:
            path.touch()
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
            _append(self.paths[0], block)
            return
        # NumPy sorts 8- and 16-bit integers by radix: four times faster than sorting the hashes themselves.
        bucket = (block >> np.uint64(64 - self.bits)).astype(np.uint8 if self.bits <= 8 else np.uint16)
        ordered = block[np.argsort(bucket, kind="stable")]
        cuts = np.cumsum(np.bincount(bucket, minlength=len(self.paths)))[:-1]
        for path, part in zip(self.paths, np.split(ordered, cuts), strict=True):
            _append(path, part)

    def __enter__(self) -> "HashSpill":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.writer.shutdown()

    def repeated(self) -> tuple[Keys, int]:
        """Return the repeated hashes and how many rows are duplicates of an earlier one; removes the files."""
        self._flush()
        self._written()
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(_repeated_in, self.paths))
        hashes = np.concatenate([values for values, _ in found])
        return np.sort(hashes.view(np.int64)), sum(extra for _, extra in found)


def _append(path: Path, values: NDArray[np.uint64]) -> None:
    # Opened for each block: a log of a billion rows has more buckets than a process may hold files.
    with path.open("ab") as file:
        file.write(values.data)


def _repeated_in(path: Path) -> tuple[NDArray[np.uint64], int]:
    """Return a bucket's repeated hashes and how many of its rows repeat another; removes the file."""
    values = np.fromfile(path, dtype=np.uint64)
    path.unlink()
    values.sort()
    same = values[1:] == values[:-1]
    return np.unique(values[1:][same]), int(same.sum())


class Deduplicator:
    """Pass 2: says which rows repeat an event that came before; `hashes` are those found by `HashSpill`.

    Memory: 8 bytes per key column and 13 more per repeated event, however often it is repeated.
    """

    def __init__(self, hashes: Keys) -> None:
        self.hashes = hashes
        self.known = np.zeros(len(hashes), dtype=bool)
        self.first: list[Keys] = []
        """Per key column, the key of the first event of every hash."""
        self.others: set[tuple[int, ...]] = set()
        """Keys of events whose hash is that of a different event, 2^-64 a pair."""
        self.said: list[NDArray[np.generic]] = []
        """What the first event of every hash says, per column that is compared."""
        self.dropped, self.contradicting = 0, [0, 0]
        """Rows that repeat an event, and those of them that say otherwise than the one that stays, per such column."""

    def duplicates(
        self, hashes: Keys, key_columns: tuple[Keys, ...], said: tuple[NDArray[Any], ...] = ()
    ) -> NDArray[np.bool_]:
        """Return a mask [N] of later occurrences; the first stays. said: columns [N] that should not contradict it."""
        mask = np.zeros(len(hashes), dtype=bool)
        if len(self.hashes) == 0:
            return mask
        at = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        rows = np.flatnonzero(self.hashes[at] == hashes)
        mask[rows] = self._again(at[rows], [c[rows] for c in key_columns], [c[rows] for c in said])
        self.dropped += int(mask.sum())
        return mask

    def _again(self, at: NDArray[np.intp], keys: list[Keys], said: list[NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which events [n], with hashes `self.hashes[at]`, came before."""
        self.first = self.first or [np.zeros(len(self.hashes), dtype=np.int64) for _ in keys]
        self.said = self.said or [np.zeros(len(self.hashes), dtype=column.dtype) for column in said]
        slots, position = np.unique(at, return_index=True)
        new = ~self.known[slots]
        slots, position = slots[new], position[new]
        for first, key in zip(self.first, keys, strict=True):
            first[slots] = key[position]
        self.known[slots] = True
        for known, column in zip(self.said, said, strict=True):
            known[slots] = column[position]
        again = np.ones(len(at), dtype=bool)
        again[position] = False
        different = np.zeros(len(at), dtype=bool)
        for first, key in zip(self.first, keys, strict=True):
            different |= first[at] != key
        for place, (known, column) in enumerate(zip(self.said, said, strict=True)):
            self.contradicting[place] += int((again & ~different & (column != known[at])).sum())
        for i in np.flatnonzero(different):
            event = tuple(int(key[i]) for key in keys)
            again[i] = event in self.others
            self.others.add(event)
        return again
