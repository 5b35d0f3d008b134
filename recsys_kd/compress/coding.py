"""Coordinates of table rows in which a shorter row loses least.

Rows are whitened by the loss metric and turned so that the first coordinates carry most of the loss, weighted by how
often each row is looked up: weighted principal components. The first r coordinates are then the best r-number row, in
loss, that any linear map can give. All coordinates of a row share the step of its code, so they are stored divided by
the square root of their size: left as they are, the large ones would make the step coarse; made alike, the small ones
would waste it. Half-way lost least on the demo's tables (powers 0, 1/4, 1/2, 3/4 and 1 of the size were tried).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.fold import Floats, FloatTable, View
from recsys_kd.index import index_bytes
from recsys_kd.tables import Bits, RowCode, matrix_bytes

Traffic = Mapping[str, NDArray[np.float64]]
"""Lookups per log row of each field's rows in its vocabulary, fallback last; `item`: of the item rows."""
Metrics = Mapping[str, NDArray[np.float64]]
_SMALLEST_SIZE = 1e-6
_TIER_TEXT = 200
"""Bytes, about, that a second tier adds to headers and manifest; its table's name stands there five times."""
_RIDGE = 0.01
"""Share of the mean sensitivity that every direction has at least: the metric is an average, single requests differ."""


@dataclass(frozen=True)
class CodedTable:
    """A table in coordinates: values = mean + z @ basis, all components kept.

    z float32 [rows, dim], fallback last; basis [dim, dim] and mean [dim] float32; views: each view's columns.
    cost [dim]: loss of a unit's square in each coordinate, per lookup, times 2.
    lookups [rows]: per row of the log, so that losses are nats per row.
    key_bits: how many bits its keys span. more_bytes: per kept row, for codes of other tables. refinable: whether its
    rows may have two tiers.
    """

    name: str
    z: Floats
    basis: Floats
    mean: Floats
    cost: NDArray[np.float64]
    views: Mapping[str, slice]
    lookups: NDArray[np.float64]
    key_bits: int
    more_bytes: int = 0
    refinable: bool = True

    @property
    def dim(self) -> int:
        """Values per row before coding."""
        return int(self.basis.shape[1])

    def thinned(self, stride: int) -> "CodedTable":
        """Return the table with every `stride`-th row only, each standing for all of its neighbours."""
        z = np.concatenate([self.z[:-1][::stride], self.z[-1:]])
        lookups = np.append(self.lookups[:-1][::stride] * stride, self.lookups[-1])
        return replace(self, z=z, lookups=lookups)

    def row_bytes(self, code: RowCode) -> float:
        """Bytes that one more kept row costs, its share of the index as if all rows were kept."""
        count = max(len(self.z) - 1, 1)
        return float(self.bytes_for(np.array([count]), code)[0]) / count

    def bytes_for(self, counts: NDArray[np.int64], code: RowCode) -> NDArray[np.int64]:
        """Return the bytes of so many kept rows and their index [N], and of the bits that tell which are hot."""
        tiers = (counts + 8) // 8 if code.more else 0
        return counts * (code.bytes + self.more_bytes) + index_bytes(counts, self.key_bits) + tiers

    def fixed_bytes(self, code: RowCode) -> int:
        """Bytes of basis, mean and fallback row; of a second tier, the row that refines nothing, and what names it."""
        mean = 4 * self.dim
        bases = sum(matrix_bytes(code.widest, c.stop - c.start) for c in self.views.values())
        return bases + mean + code.bytes + (code.more.bytes + _TIER_TEXT + 5 * len(self.name) if code.more else 0)

    def codes(self, bits: Sequence[Bits]) -> Iterator[RowCode]:
        """Yield every code of some bits that this table's rows may have."""
        return (RowCode(rank, b) for rank in range(1, self.dim + 1) for b in bits)

    def saved(self, code: RowCode) -> Floats:
        """Return the loss that keeping each row under a code saves [rows - 1]; the mean row saves nothing.

        Rounding to codes adds a twelfth of the squared step to the error of every coordinate.
        """
        step = self._range[:, code.rank - 1] / (2**code.bits - 1)
        rounding = np.float32(self.cost[: code.rank].sum() / 12)
        worth: Floats = self._energy[:, code.rank - 1] - self._half * np.square(step) * rounding
        return worth

    def refined(self, code: RowCode) -> Floats:
        """Return the loss that keeping each row as a hot one saves [rows - 1].

        What is left of the first coordinates after the base's codes is at most half of its step; the others are whole.
        """
        rank, more = code.rank, code.more or code
        left = self._range[:, rank - 1] / (2 * (2**code.bits - 1))
        reach = np.maximum(left, np.abs(self.z[:-1, rank : more.rank]).max(axis=1, initial=0.0))
        step = 2 * reach / (2**more.bits - 1)
        rounding = np.float32(self.cost[: more.rank].sum() / 12)
        worth: Floats = self._energy[:, more.rank - 1] - self._half * np.square(step) * rounding
        return worth

    @cached_property
    def _half(self) -> Floats:
        half: Floats = (0.5 * self.lookups[:-1]).astype(np.float32)
        return half

    @cached_property
    def _energy(self) -> Floats:
        return np.asfortranarray(
            self._half[:, None] * np.cumsum(np.square(self.z[:-1]) * self.cost.astype(np.float32), axis=1)
        )

    @cached_property
    def _range(self) -> Floats:
        """Twice the largest magnitude of the first coordinates: codes reach as far on either side of zero."""
        return np.asfortranarray(2 * np.maximum.accumulate(np.abs(self.z[:-1]), axis=1))

    def exact_rank(self) -> int:
        """Return the fewest coordinates that carry all but a billionth of the loss."""
        energy = np.cumsum(0.5 * self.cost * (self.lookups @ np.square(self.z, dtype=np.float64)))
        return int(np.searchsorted(energy, energy[-1] * (1 - 1e-9))) + 1


def code_table(name: str, table: FloatTable, traffic: Traffic, metrics: Metrics, key_bits: int) -> CodedTable:
    """Return a table in coordinates; `metrics` [dim, dim] is the loss metric of every view."""
    values, lookups, metric = table.values, table_traffic(table, traffic), joint_metric(table, traffic, metrics)
    weight = np.maximum(lookups, 1e-6 * max(lookups.max(), 1e-12))
    mean = np.average(values, axis=0, weights=weight)
    ridge = _RIDGE * max(float(np.trace(metric)) / len(mean), 1e-12)
    scale, turn = np.linalg.eigh(metric + ridge * np.eye(len(mean)))
    root = turn * np.sqrt(scale)
    white = (values - mean) @ root
    size, components = np.linalg.eigh((white * weight[:, None]).T @ white)
    size, components = np.sqrt(np.maximum(size[::-1], 0.0)), components[:, ::-1]
    shrink = np.sqrt(np.maximum(size / max(size[0], 1e-12), _SMALLEST_SIZE))
    basis = shrink[:, None] * (components.T @ (turn / np.sqrt(scale)).T)
    z = (white @ components / shrink).astype(np.float32)
    cost = np.square(shrink)
    return CodedTable(
        name, z, basis.astype(np.float32), mean.astype(np.float32), cost, table.columns, lookups, key_bits
    )


def table_traffic(table: FloatTable, traffic: Traffic) -> NDArray[np.float64]:
    """Return the lookups of a table's rows [rows], summed over all views."""
    total: NDArray[np.float64] = np.sum([view_traffic(view, traffic) for view in table.views], axis=0)
    return total


def view_traffic(view: View, traffic: Traffic) -> NDArray[np.float64]:
    """Return the lookups of a view's rows [rows]; rows that share one vocabulary row share its lookups."""
    total: NDArray[np.float64] = np.sum([traffic[name] for name in view.fields], axis=0, dtype=np.float64)
    if view.rows is None:
        return total
    sharing = np.bincount(view.rows, minlength=len(total))
    return (total / np.maximum(sharing, 1))[view.rows]


def joint_metric(table: FloatTable, traffic: Traffic, metrics: Metrics) -> NDArray[np.float64]:
    """Return the metric of all views side by side [dim, dim], each weighted by its share of the table's lookups."""
    share = [float(view_traffic(view, traffic).sum()) for view in table.views]
    total = max(sum(share), 1e-12)
    columns = table.columns
    dim = max(c.stop for c in columns.values())
    metric = np.zeros((dim, dim))
    for view, weight in zip(table.views, share, strict=True):
        metric[columns[view.name], columns[view.name]] = metrics[view.name] * (weight / total)
    return metric
