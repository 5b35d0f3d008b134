"""Score raw log batches through an artifact, without the vocabularies that it was trained with.

An artifact's rows are found by key, so a batch's own distinct keys serve as its vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.batch import Bag, Batch
from recsys_kd.data.checks import Canonical
from recsys_kd.data.convert import TextKeys
from recsys_kd.data.items import RawBag, bag_of, categories_of
from recsys_kd.data.layout import column_of
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.schema import ITEM, USER, Field, Schema
from recsys_kd.settings import FieldConfig
from recsys_kd.tables import CompiledStudent

Ints = NDArray[np.int64]


def fields_of(schema: Schema, given: Mapping[str, FieldConfig]) -> list[FieldConfig]:
    """Return how to read a model's inputs from a log; columns as the recipe names them, else as the field is called.

    Item-side inputs need no column: an artifact holds them by item.
    """
    found = []
    for field in schema.fields:
        if field.side == "item" or field.name == USER:
            continue
        column = given[field.name].column if field.name in given else None
        kind = "categorical" if field.kind == "id" else field.kind
        missing = given[field.name].missing if field.name in given else "quarantine"
        found.append(
            FieldConfig(
                name=field.name,
                side=field.side,
                kind=kind,
                column=column,
                dim=max(field.dim, 2) if kind == "vector" else 1,
                max_length=field.max_length or 50,
                missing=missing,
            )
        )
    return found


@dataclass(frozen=True)
class _Source:
    """The distinct keys of one batch, as `runtime.offline` asks for them."""

    known: Mapping[str, Ints]
    item_rows: Ints

    def keys(self, vocabulary: str) -> Ints:
        """Return the sorted keys of a vocabulary in this batch."""
        return self.known.get(vocabulary, np.zeros(0, dtype=np.int64))


class RawScorer:
    """One model over batches of one log."""

    def __init__(self, student: CompiledStudent, fields: Mapping[str, FieldConfig]) -> None:
        self.student, self.fields = student, fields
        self.text = {name: TextKeys() for name in fields}

    def __call__(self, batch: pa.RecordBatch, rows: Canonical) -> NDArray[np.float32]:
        """Return logits of a batch's rows [B]."""
        schema = self.student.schema
        inputs = [f for f in schema.fields if f.side != "item"]
        raw = {f.name: self._raw(f, batch, rows) for f in inputs if f.is_lookup}
        pools: dict[str, list[Ints]] = {"item": [rows.item]}
        for field in inputs:
            if field.is_lookup:
                keys = raw[field.name]
                pools.setdefault(field.vocabulary or "", []).append(keys.values if isinstance(keys, RawBag) else keys)
        known = {name: np.unique(np.concatenate(parts)) for name, parts in pools.items()}
        items = np.searchsorted(known["item"], rows.item)
        ids: dict[str, Ints] = {ITEM: items}
        bags = {}
        for field in (f for f in inputs if f.is_lookup):
            keys, vocabulary = raw[field.name], known[field.vocabulary or ""]
            if isinstance(keys, RawBag):
                bags[field.name] = Bag(np.searchsorted(vocabulary, keys.values), keys.offsets)
            else:
                ids[field.name] = np.searchsorted(vocabulary, keys)
        dense = {f.name: _numbers(f, rows) for f in inputs if not f.is_lookup}
        model = OfflineModel(self.student, _Source(known, items))
        n = np.zeros(len(rows.user), dtype=np.int64)
        return model.score_rows(Batch(ids, bags, dense, rows.label, rows.label, n, n, n, rows.timestamp), items)

    def _raw(self, field: Field, batch: pa.RecordBatch, rows: Canonical) -> Ints | RawBag:
        if field.name == USER:
            return rows.user
        config = self.fields[field.name]
        column, text = batch.column(column_of(config)), self.text[field.name]
        return bag_of(column, config.max_length, text) if field.kind == "bag" else categories_of(column, text)


def _numbers(field: Field, rows: Canonical) -> NDArray[np.float32]:
    if field.kind == "vector":
        return rows.vectors[field.name]
    values = (rows.numbers[field.name] - np.float32(field.mean)) / np.float32(field.std)
    return np.asarray(np.nan_to_num(values)[:, None], dtype=np.float32)
