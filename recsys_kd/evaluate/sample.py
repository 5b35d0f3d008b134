"""The rows that all models are measured on, grouped by user and by request."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Unit = Literal["user", "request"]
Codes = NDArray[np.int64] | NDArray[np.int32]
BLOCK_ROWS = 131_072
BLOCK_SORTED = 1 << 19
"""Rows taken at once where they stand in order of score: temporaries stay at a few MB whatever the log's size."""


@dataclass(frozen=True)
class Sample:
    """Arrays [N]; `user` and `request` are any codes, and dense int32 ones are not copied.

    The optional columns are for the metrics that need them.
    """

    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    user: Codes
    request: Codes
    item: Codes | None = None
    price: NDArray[np.float32] | None = None
    """What an item brings when it is clicked, in any currency."""
    gain: NDArray[np.float32] | None = None
    """Clicks over the chance that their position was looked at; see `evaluate.positions`."""
    by: Unit = "user"
    """What is independent of what: intervals are clustered by it."""

    @cached_property
    def person(self) -> NDArray[np.int32]:
        """Dense user number per row."""
        return self.cluster if self.by == "user" else dense(self.user)

    @cached_property
    def persons(self) -> int:
        """Number of users."""
        return int(self.person.max(initial=-1)) + 1

    @cached_property
    def cluster(self) -> NDArray[np.int32]:
        """Dense number of the user, or request, per row."""
        return dense(self.user) if self.by == "user" else self.slate

    @cached_property
    def slate(self) -> NDArray[np.int32]:
        """Dense request number per row."""
        return dense(self.request)

    @cached_property
    def clusters(self) -> int:
        """Number of users, or requests."""
        return int(self.cluster.max(initial=-1)) + 1

    @cached_property
    def slates(self) -> int:
        """Number of requests."""
        return int(self.slate.max(initial=-1)) + 1

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """Rows counted as clicks."""
        return self.label > 0.5

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """Cluster of every request [requests]."""
        owner = np.zeros(self.slates, dtype=np.int32)
        owner[self.slate] = self.cluster
        return owner

    @cached_property
    def slate_blocks(self) -> tuple[slice, ...]:
        """Slices of whole requests, small enough for a processor's cache, where the rows of a request stand together.

        One slice of everything where they do not.
        """
        if len(self.slate) == 0 or (np.diff(self.slate) < 0).any():
            return (slice(0, len(self.slate)),)
        starts = np.flatnonzero(np.diff(self.slate, prepend=-1))
        cuts = starts[np.searchsorted(starts, np.arange(0, len(self.slate), BLOCK_ROWS))]
        edges = [*dict.fromkeys(int(c) for c in cuts), len(self.slate)]
        return tuple(slice(a, b) for a, b in pairwise(edges))

    def where(self, mask: NDArray[np.bool_]) -> "Sample":
        """Return the rows of a mask."""
        columns: dict[str, Any] = {f.name: _taken(getattr(self, f.name), mask) for f in fields(self) if f.name != "by"}
        return Sample(**columns, by=self.by)

    def by_cluster(self, values: NDArray[np.generic]) -> Floats:
        """Return the sum of row values [N] per cluster."""
        return self.summed(lambda rows: values[rows])

    def summed(self, values: Callable[[slice], NDArray[np.generic]]) -> Floats:
        """Return the sum per cluster of the values of rows, asked for a block at a time: none of them lasts."""
        total = np.zeros(self.clusters)
        for start in range(0, len(self.label), BLOCK_SORTED):
            rows = slice(start, start + BLOCK_SORTED)
            total += np.bincount(self.cluster[rows], weights=values(rows), minlength=self.clusters)
        return total

    def by_owner(self, values: NDArray[np.generic]) -> Floats:
        """Return the sum of request values [requests] per cluster."""
        return np.bincount(self.owner, weights=values, minlength=self.clusters).astype(np.float64, copy=False)


def _taken(column: NDArray[Any] | None, mask: NDArray[np.bool_]) -> NDArray[Any] | None:
    return None if column is None else column[mask]


def dense(codes: Codes) -> NDArray[np.int32]:
    """Return codes renumbered 0, 1, .. in their order."""
    if len(codes) and codes.min() == 0 and codes.max() < 2 * len(codes):
        seen = np.zeros(int(codes.max()) + 1, dtype=bool)
        seen[codes] = True
        if seen.all():
            return codes.astype(np.int32, copy=False)
    return numbered(codes)[1]


def numbered(codes: Codes) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the distinct codes in their order, and each row's number among them [N].

    As `np.unique` with its inverse, in less than half its memory.
    """
    order = np.argsort(codes)
    ranked = codes[order]
    new = np.ones(len(codes), dtype=bool)
    np.not_equal(ranked[1:], ranked[:-1], out=new[1:])
    distinct = ranked[new].astype(np.int64, copy=False)
    del ranked
    number = np.empty(len(codes), dtype=np.int32)
    number[order] = np.cumsum(new, dtype=np.int32) - 1
    return distinct, number
