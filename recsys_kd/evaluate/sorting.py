"""Rows in order of score, in 8 bytes a row: the score's key stands above the row's number, and one array is sorted.

Ten million rows take 80 MB so, against 400 MB for an order with its tie groups; and what follows walks along it in
blocks of whole tie groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.sample import BLOCK_SORTED
from recsys_kd.evaluate.scores import Order

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Sorted:
    """Rows by rising score; `packed` [N] holds the score's key and row number, equal scores by row."""

    packed: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.packed)

    def rows(self, part: slice) -> NDArray[np.int64]:
        """Return the row numbers of some places."""
        return (self.packed[part] & _LOW).astype(np.int64)

    def heads(self, part: slice) -> NDArray[np.int64]:
        """Return the places within some whole tie groups at which a new score begins."""
        key = self.packed[part] >> _HALF
        return np.flatnonzero(np.append(True, key[1:] != key[:-1]))

    def whole(self, places: NDArray[np.int64]) -> tuple[slice, ...]:
        """Return slices of everything that are cut where the tie groups at these places begin."""
        lowest = self.packed[places] & ~_LOW
        cuts = np.searchsorted(self.packed, lowest)
        return tuple(slice(int(a), int(b)) for a, b in pairwise(np.unique([0, *cuts, len(self.packed)])))

    def blocks(self) -> Iterator[slice]:
        """Yield slices of whole tie groups, of about as many rows as a processor's cache takes."""
        yield from self.whole(np.arange(0, len(self.packed), BLOCK_SORTED))


def sort_scores(order: Order) -> Sorted:
    """Sort rows [N] by the keys of their scores, lowest first; fewer than 2^32 rows."""
    packed = order.astype(np.uint64)
    packed <<= _HALF
    packed |= np.arange(len(order), dtype=np.uint32)
    packed.sort()
    return Sorted(packed)


def user_blocks(
    order: Order, positive: NDArray[np.bool_], user: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.bool_]]]:
    """Yield (user, sort key, positive) of rows sorted by user and score, in blocks of whole users; `user` is dense."""
    packed = user.astype(np.uint64)
    packed <<= np.uint64(33)
    key = order.astype(np.uint64)
    key <<= np.uint64(1)
    packed |= key
    del key
    packed |= positive
    packed.sort()
    first = packed[::BLOCK_SORTED] >> np.uint64(33) << np.uint64(33)
    for a, b in pairwise(np.unique([*np.searchsorted(packed, first), len(packed)])):
        block = packed[a:b]
        yield (block >> np.uint64(33)).astype(np.int64), block >> np.uint64(1), (block & np.uint64(1)) == 1
