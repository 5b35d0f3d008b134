"""Spilled columns in time order, a block of rows at a time: no column is ever held whole.

What grows with the rows is the order (8 bytes a row) and, while the keys of one column are counted, those keys.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.columns import ColumnFiles, rows_of
from recsys_kd.data.items import RawBag, RawField, spread

Ints = NDArray[np.int64]
_CHUNK = 1 << 20
"""Numbers per block."""


def ends_of(name: str) -> str:
    """Return the column that holds where each row's values of a bag column end."""
    return f"{name}.ends"


class Ordered:
    """Columns of `raw` by `order` [N]: the arrival row of every row in time order."""

    def __init__(self, raw: ColumnFiles, order: Ints) -> None:
        self.raw, self.order = raw, order

    def blocks(self, name: str, part: range | None = None) -> Iterator[tuple[slice, NDArray[np.generic]]]:
        """Yield (rows, values) over `part`, all rows where absent."""
        source = self.raw.read(name)
        for rows in self._slices(part, source.shape[1] if source.ndim == 2 else 1):
            yield rows, np.asarray(source[self.order[rows]])

    def bags(self, name: str, part: range | None = None) -> Iterator[tuple[slice, RawBag]]:
        """Yield (rows, bags) over `part`, all rows where absent."""
        for rows in self._slices(part, 16):
            yield rows, self._bags_at(name, self.order[rows])

    def keys(self, name: str, part: range, bag: bool) -> Iterator[Ints]:
        """Yield the int64 keys of a column or bag column over `part`."""
        if bag:
            yield from (block.values for _, block in self.bags(name, part))
        else:
            yield from (block.astype(np.int64, copy=False) for _, block in self.blocks(name, part))

    def at(self, name: str, rows: Ints, bag: bool) -> RawField:
        """Return the values of some rows; a row of N is "missing"."""
        there = rows < len(self.order)
        arrival = self.order[rows[there]]
        few = self._bags_at(name, arrival) if bag else np.asarray(self.raw.read(name)[arrival])
        return spread({name: few}, np.where(there, np.cumsum(there) - 1, len(arrival)), len(arrival))[name]

    def _bags_at(self, name: str, arrival: Ints) -> RawBag:
        values, ends = self.raw.read(name), self.raw.read(ends_of(name))
        stop = np.asarray(ends[arrival], dtype=np.int64)
        start = np.where(arrival > 0, ends[np.maximum(arrival - 1, 0)], 0).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(stop - start)])
        index = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)
        return RawBag(np.asarray(values[index], dtype=np.int64), offsets)

    def _slices(self, part: range | None, width: int) -> Iterator[slice]:
        part = range(len(self.order)) if part is None else part
        step = max(1, _CHUNK // width)
        for start in range(part.start, part.stop, step):
            yield slice(start, min(start + step, part.stop))


def distinct(blocks: Iterator[Ints]) -> tuple[Ints, Ints]:
    """Return the distinct keys of all blocks, sorted, and how often each occurs.

    Blocks are merged once they hold as many keys as are known: a key is sorted a few times, not once a block.
    """
    keys, counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    pending: list[tuple[Ints, Ints]] = []
    held = 0
    for block in blocks:
        pending.append(np.unique(block, return_counts=True))
        held += len(pending[-1][0])
        if held > max(len(keys), _CHUNK):
            keys, counts = _merged([(keys, counts), *pending])
            pending, held = [], 0
    return _merged([(keys, counts), *pending])


def distinct_keys(blocks: Iterator[Ints]) -> Ints:
    """Return the distinct keys of all blocks, sorted; some 25 bytes for each where nearly all of them differ."""
    keys, pending, held = np.zeros(0, dtype=np.int64), [np.zeros(0, dtype=np.int64)], 0
    for block in blocks:
        pending.append(sorted_set(np.sort(block)))
        held += len(pending[-1])
        if held > max(len(keys), _CHUNK):
            keys, pending, held = _union(keys, pending), [], 0
    return _union(keys, pending)


def _union(keys: Ints, pending: list[Ints]) -> Ints:
    joined = np.concatenate([keys, *pending])
    pending.clear()
    joined.sort()
    return sorted_set(joined)


def sorted_set(ordered: Ints) -> Ints:
    """Return the distinct ones of sorted keys; np.unique hashes instead, 870 ms for 1M different ones, not 16."""
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def _merged(parts: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    keys, counts = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    starts = np.flatnonzero(first)
    return keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts


def moments(blocks: Iterator[NDArray[np.generic]]) -> tuple[float, float]:
    """Return mean and standard deviation of the finite values of all blocks, 0 and 1 where there are none.

    Blocks are joined by their means (Chan et al. 1979), since sums of squares would cancel for values far from 0.
    """
    n, mean, spread_ = 0, 0.0, 0.0
    for block in blocks:
        values = np.asarray(block, dtype=np.float64)
        values = values[np.isfinite(values)]
        if len(values) == 0:
            continue
        delta, total = float(values.mean()) - mean, n + len(values)
        spread_ += float(((values - values.mean()) ** 2).sum()) + delta**2 * n * len(values) / total
        mean, n = mean + delta * len(values) / total, total
    return (mean, float(np.sqrt(spread_ / n))) if n else (0.0, 1.0)


def coded(values: RawField, known: Ints) -> RawField:
    """Return vocabulary rows int32 for keys, bags kept as bags."""
    if isinstance(values, RawBag):
        return RawBag(rows_of(values.values, known).astype(np.int32), values.offsets)
    return rows_of(values.astype(np.int64, copy=False), known).astype(np.int32)
