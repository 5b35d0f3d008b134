"""A batch of rows in NumPy: what every ranking model scores, torch or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_kd.schema import Schema


@dataclass(frozen=True)
class Bag:
    """A multi-valued field: row `b` of the batch holds `values[offsets[b]:offsets[b + 1]]`."""

    values: NDArray[np.int64]
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """B rows of a log, encoded by one schema.

    ids: row numbers [B] per id or categorical field. bags: per bag field. dense: float32 [B, dim] per dense or vector
    field, already standardized. label and weight: float32 [B]. row_id: int64 [B], the event's hash, stable across
    nights. user and request: int64 [B], the clusters and lists that metrics group by. timestamp: int64 [B], ms UTC.
    """

    ids: Mapping[str, NDArray[np.int64]]
    bags: Mapping[str, Bag]
    dense: Mapping[str, NDArray[np.float32]]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    row_id: NDArray[np.int64]
    user: NDArray[np.int64]
    request: NDArray[np.int64]
    timestamp: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)


class RankingModel(Protocol):
    """Anything that ranks: the teacher, the student, the served artifact, or one plugged in by entry point."""

    schema: Schema

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Return logits [B]."""
        ...
