"""Score an encoded log with the very tables that are served: what evaluation from disk uses.

A batch holds row numbers of the training vocabularies; they are moved to the artifact's rows once, so that pruned ids
use the fallback row here exactly as they do in `Ranker`.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_kd.batch import Bag, Batch
from recsys_kd.runtime.grid import on_grid
from recsys_kd.runtime.head import STEPS, Head
from recsys_kd.runtime.sums import bag_term, dense_term, row_term
from recsys_kd.schema import ITEM
from recsys_kd.tables import CompiledStudent, Term

Moves = Mapping[str, NDArray[np.int64]]


class KeyedRows(Protocol):
    """What an encoded log tells of its rows."""

    @property
    def item_rows(self) -> NDArray[np.int64]:
        """Item row of every log row."""
        ...

    def keys(self, vocabulary: str) -> NDArray[np.int64]:
        """Return the sorted keys of a vocabulary's rows; `item` gives those of the item rows."""
        ...


class OfflineModel:
    """A `RankingModel` over batches of one encoded log; `steps`: see `Head`."""

    def __init__(self, student: CompiledStudent, source: KeyedRows, steps: int | None = STEPS) -> None:
        self.student = student = on_grid(student)
        self.schema = student.schema
        self._head = Head(student, steps)
        self.moves = {
            term.name: self._moves(term.table, term.name, term.field, source) for term in student.terms if term.table
        }

    def _moves(self, table: str, name: str, field: str, source: KeyedRows) -> NDArray[np.int64]:
        """Return training row -> artifact row, fallback to fallback; item rows behind, where items are looked up."""
        vocabulary = "item" if name == "item" else self.schema.field(field).vocabulary or ""
        index = self.student.indexes[table]
        rows = np.append(index.rows(source.keys(vocabulary)), len(index))
        return np.append(rows, index.rows(source.keys("item"))) if vocabulary == ITEM else rows

    def score_rows(self, batch: Batch, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return logits [B]; `items` are the item rows of the batch."""
        sums = np.zeros((len(batch), self.student.first + self.student.width + 1), dtype=np.float32)
        for _, part in self.parts(batch, items):
            sums += part
        return self._head(sums)

    def parts(self, batch: Batch, items: NDArray[np.int64]) -> Iterator[tuple[Term, NDArray[np.float32]]]:
        """Yield what every term adds to (h, S, s): float32 [B, H + d + 1]."""
        student = self.student
        item_rows = self.moves["item"][items]
        for term in student.terms:
            if term.side == "item":
                rows = item_rows if term.name == "item" else student.codes[term.name][item_rows].astype(np.int64)
                yield term, row_term(student, term, rows)
            elif term.kind == "bag":
                bag = batch.bags[term.field]
                yield term, bag_term(student, term, Bag(self.moves[term.name][bag.values], bag.offsets))
            elif term.kind == "row":
                yield term, row_term(student, term, self.moves[term.name][batch.ids[term.field]])
            else:
                yield term, dense_term(student, term, batch.dense[term.field])

    def fallback_lookups(self, batch: Batch, items: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
        """Return, per field, how many lookups use a fallback row, and how many there are."""
        counts = {}
        for term in self.student.terms:
            if term.table is None or (term.side == "item" and term.name != "item"):
                continue
            rows = (
                items
                if term.name == "item"
                else (batch.bags[term.field].values if term.kind == "bag" else batch.ids[term.field])
            )
            fallback = len(self.student.indexes[term.table])
            counts[term.field] = int((self.moves[term.name][rows] == fallback).sum()), len(rows)
        return counts
