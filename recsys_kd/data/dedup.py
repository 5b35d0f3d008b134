"""Exact global duplicate detection in bounded memory.

Pass 1 spills every event's 64-bit hash into bucket files by its high bits and sorts one bucket at a time; the hashes
that occur twice are few. Pass 2 keeps the exact keys of those few only, so equal hashes of different events stay apart.
"""

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

    def add(self, hashes: Keys) -> None:
        """Take the hashes of one batch."""
        if self.held + len(hashes) > _FLUSH_ROWS:
            self._flush()
        self.buffer[self.held : self.held + len(hashes)] = hashes.view(np.uint64)
        self.held += len(hashes)

    def _flush(self) -> None:
        # Sorting the whole block puts each bucket's share together, and is faster than a bucket sort in NumPy.
        block = self.buffer[: self.held]
        block.sort()
        edges: list[int] | NDArray[np.uint64] = (
            np.arange(1, len(self.files), dtype=np.uint64) << np.uint64(64 - self.bits) if self.bits else []
        )
        cuts = np.searchsorted(block, edges)
        for file, part in zip(self.files, np.split(block, cuts), strict=True):
            file.write(part.data)
        self.held = 0

    def __enter__(self) -> "HashSpill":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self.files:
            file.close()

    def repeated(self) -> tuple[Keys, int]:
        """Return the repeated hashes and how many rows are duplicates of an earlier one; removes the files."""
        self._flush()
        found, extra = [np.zeros(0, dtype=np.uint64)], 0
        for file, path in zip(self.files, self.paths, strict=True):
            file.close()
            values = np.fromfile(path, dtype=np.uint64)
            path.unlink()
            values.sort()
            same = values[1:] == values[:-1]
            extra += int(same.sum())
            found.append(np.unique(values[1:][same]))
        return np.sort(np.concatenate(found).view(np.int64)), extra


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
