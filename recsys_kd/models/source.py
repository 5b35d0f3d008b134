"""What training and scoring need of a data set, whoever holds it (rooms beside each other don't import each other)."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_kd.batch import Batch
from recsys_kd.schema import Schema


class RowSource(Protocol):
    """Rows of an encoded log; `recsys_kd.data.dataset.Dataset` is one."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def schema(self) -> Schema:
        """The contract that the rows were encoded by."""
        ...

    def batch(self, rows: slice | NDArray[np.int64]) -> Batch:
        """Return any rows, in the order given."""
        ...

    def column(self, name: str) -> NDArray[np.generic]:
        """Return a whole column [N], such as `request`."""
        ...

    def batches(
        self, rows: range, batch_size: int, seed: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Yield `rows` in batches: in order without a seed, shuffled with one; each of `world` ranks gets its share."""
        ...
