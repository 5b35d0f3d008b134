"""The served student as a torch module: what recovery trains after rows were pruned and narrowed.

It computes what `recsys_kd.runtime.sums` computes, from the same rows, bases and arrays, with gradients.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys_kd.batch import Bag, Batch
from recsys_kd.models.gradients import is_sparse
from recsys_kd.models.names import key
from recsys_kd.models.rounding import as_coded
from recsys_kd.tables import CompiledStudent, Float32Table, RowTable, Term

Moves = Mapping[str, NDArray[np.int64]]


class CompiledModule(nn.Module):
    """A compiled student with float32 rows, trainable; `moves` gives every term's table row per training row.

    `aware`: rows that have a code are looked up as they will read once they are coded.
    """

    def __init__(self, student: CompiledStudent, moves: Moves, aware: bool = False) -> None:
        super().__init__()
        self.student = student
        self.moves = moves
        self.aware = aware
        rows = {name: t.lookup(np.arange(t.rows)) for name, t in student.tables.items()}
        self.rows = nn.ParameterDict({key(name): _parameter(values) for name, values in rows.items()})
        for name, table in student.tables.items():
            if isinstance(table, Float32Table) and table.hot is not None and table.code is not None:
                _hold(self.rows[key(name)], torch.from_numpy(table.hot), table.code.rank)
        self.arrays = nn.ParameterDict({key(name): _parameter(values) for name, values in student.arrays.items()})

    def _array(self, name: str) -> Tensor:
        array: Tensor = self.arrays[key(name)]
        return array

    def _source(self, name: str, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, bool]:
        """Return what to look rows [N] of a table up in, where they are in it, and whether its gradient is sparse."""
        table, kind = self.rows[key(name)], self.student.tables[name]
        if not self.aware or not isinstance(kind, Float32Table) or kind.code is None:
            return table, torch.from_numpy(rows), is_sparse(table)
        used, at = np.unique(rows, return_inverse=True)
        values = nn.functional.embedding(torch.from_numpy(used), table, sparse=is_sparse(table))
        hot = None if kind.hot is None else torch.from_numpy(kind.hot[used])
        return as_coded(values, kind.code, hot), torch.from_numpy(at), False

    def _lookup(self, term: Term, rows: NDArray[np.int64]) -> Tensor:
        table, at, sparse = self._source(term.table or "", rows)
        return nn.functional.embedding(at, table, sparse=sparse)

    def _view(self, term: Term, z: Tensor) -> Tensor:
        return z @ self._array(f"basis.{term.view}") + self._array(f"mean.{term.view}")

    def _expand(self, term: Term, e: Tensor, linear: Tensor) -> Tensor:
        scalar = linear - 0.5 * e.square().sum(1)
        return torch.cat([e @ self._array(f"first.{term.name}").T, e, scalar[:, None]], dim=1)

    def _row_term(self, term: Term, rows: NDArray[np.int64]) -> Tensor:
        values = self._view(term, self._lookup(term, rows))
        return values if term.layout == "folded" else self._expand(term, values[:, :-1], values[:, -1])

    def _bag_term(self, term: Term, bag: Bag) -> Tensor:
        table, at, sparse = self._source(term.table or "", self.moves[term.name][bag.values])
        offsets = torch.from_numpy(bag.offsets)
        z = nn.functional.embedding_bag(at, table, offsets, mode="mean", sparse=sparse, include_last_offset=True)
        full = torch.from_numpy(np.diff(bag.offsets) > 0)
        pooled = torch.where(full[:, None], self._view(term, z), 0.0)
        return self._expand(term, pooled[:, :-1], pooled[:, -1])

    def _number_term(self, term: Term, x: Tensor) -> Tensor:
        linear = x @ self._array(f"linear.{term.name}")
        if term.kind == "vector":
            return self._expand(term, x @ self._array(f"project.{term.name}").T, linear)
        hidden = x @ self._array(f"first.{term.name}").T
        return torch.cat([hidden, torch.zeros(len(x), self.student.width), linear[:, None]], dim=1)

    def _term(self, term: Term, batch: Batch, items: NDArray[np.int64]) -> Tensor:
        if term.side == "item":
            rows = self.moves["item"][items]
            return self._row_term(
                term, rows if term.name == "item" else self.student.codes[term.name][rows].astype(np.int64)
            )
        if term.kind == "bag":
            return self._bag_term(term, batch.bags[term.field])
        if term.kind == "row":
            return self._row_term(term, self.moves[term.name][batch.ids[term.field]])
        return self._number_term(term, torch.from_numpy(batch.dense[term.field]))

    def forward(self, batch: Batch, items: NDArray[np.int64]) -> Tensor:
        """Return logits [B]; `items` are the item rows of the batch [B]."""
        # Added one by one, not stacked: each stays in the cache, and training is bound by memory.
        sums = reduce(torch.add, (self._term(term, batch, items) for term in self.student.terms))
        first = self.student.first
        x = torch.relu(sums[:, :first] + self._array("hidden.0.bias"))
        i = 1
        while f"hidden.{i}.weight" in self.student.arrays:
            x = torch.relu(x @ self._array(f"hidden.{i}.weight").T + self._array(f"hidden.{i}.bias"))
            i += 1
        wide = sums[:, -1] + 0.5 * sums[:, first:-1].square().sum(1)
        logit = wide + x @ self._array("out.weight") + self._array("bias")
        if "calibration" in self.student.arrays:
            slope, offset = self._array("calibration")
            logit = slope * logit + offset
        return logit

    @torch.no_grad()
    def compiled(self) -> CompiledStudent:
        """Return the student as it is now, with float32 rows."""
        rows = {name: _numpy(self.rows[key(name)]) for name in self.student.tables}
        tables = {name: float_rows(table, rows[name]) for name, table in self.student.tables.items()}
        arrays = {name: _numpy(self._array(name)) for name in self.student.arrays}
        return replace(self.student, tables=tables, arrays=arrays)


def float_rows(like: RowTable, rows: NDArray[np.float32]) -> Float32Table:
    """Return float rows in the tiers of another table."""
    return replace(like, data=rows) if isinstance(like, Float32Table) else Float32Table(rows)


def _hold(rows: nn.Parameter, hot: Tensor, rank: int) -> None:
    """Let no gradient reach the numbers from `rank` on of rows that are not hot: they are to stay zero."""
    beyond = ~hot[:, None] & (torch.arange(rows.shape[1]) >= rank)

    def held(gradient: Tensor) -> Tensor:
        if not gradient.is_sparse:
            return gradient.masked_fill(beyond, 0.0)
        found = gradient.coalesce()
        values = found.values().masked_fill(beyond[found.indices()[0]], 0.0)
        return torch.sparse_coo_tensor(found.indices(), values, found.shape, is_coalesced=True, check_invariants=False)

    rows.register_hook(held)  # type: ignore[no-untyped-call]


def _parameter(values: NDArray[np.float32]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(values, dtype=np.float32)))


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy().copy()
    return array
