"""Fold a float student into the rows that are served.

Request-side rows stay compact (embedding and linear weight) unless they are few: they are folded once per request, when
it comes. Candidate rows are multiplied through the first layer here, once: a folded row holds its part of h [H], S [d]
and s [1]; with `fold: item` all item-side fields of an item are added into one row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys_kd.batch import Bag
from recsys_kd.schema import ITEM, Field, Schema
from recsys_kd.tables import StudentWeights, Term

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ItemFeatures:
    """Item-side fields per item row, unknown item last: row numbers, bags, or float32 [items, dim].

    `item_id` gives the embedding row of every item, the fallback's for items too rare to have one.
    """

    ids: Mapping[str, NDArray[np.int64]]
    bags: Mapping[str, Bag]
    dense: Mapping[str, Floats]


@dataclass(frozen=True)
class View:
    """One use of a table's rows: the values it takes from them, float32 [rows, dim], fallback last.

    fields: whose training traffic says what a row is worth. rows: the vocabulary row behind each table row, where the
    table has other rows than the fields' vocabulary.
    """

    name: str
    values: Floats
    fields: tuple[str, ...]
    rows: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class FloatTable:
    """One served table before pruning and quantizing; all its views will share one coded row per key.

    keys: the vocabulary that keys it (`item`: the item rows).
    """

    keys: str
    views: tuple[View, ...]

    @property
    def values(self) -> Floats:
        """All views side by side, float32 [rows, dim]."""
        return np.concatenate([view.values for view in self.views], axis=1)

    @property
    def columns(self) -> dict[str, slice]:
        """Each view's columns of `values`."""
        ends = list(accumulate(view.values.shape[1] for view in self.views))
        return {v.name: slice(end - v.values.shape[1], end) for v, end in zip(self.views, ends, strict=True)}


@dataclass(frozen=True)
class FoldedStudent:
    """Terms, float tables by name, and item -> row codes for tables that another vocabulary keys."""

    weights: StudentWeights
    terms: tuple[Term, ...]
    tables: Mapping[str, FloatTable]
    codes: Mapping[str, NDArray[np.int32]]


def contribution(weights: StudentWeights, field: Field, e: Floats, linear: Floats) -> Floats:
    """Return what embeddings `e` [N, d] with linear weights [N] add to (h, S, s): float32 [N, H + d + 1]."""
    hidden = e @ weights.arrays[f"first.{field.name}"].T
    scalar = linear - 0.5 * np.square(e).sum(axis=1)
    return np.concatenate([hidden, e, scalar[:, None]], axis=1)


def _table(weights: StudentWeights, field: Field) -> tuple[Floats, Floats]:
    rows = weights.tables[field.vocabulary or ""]
    return rows[:, : weights.width], rows[:, weights.width]


def _pool(rows: Floats, bag: Bag) -> Floats:
    """Return the mean row of each bag, 0 for an empty one."""
    lengths = np.diff(bag.offsets)
    sums = np.zeros((len(lengths), rows.shape[1]), dtype=np.float64)
    np.add.at(sums, np.repeat(np.arange(len(lengths)), lengths), rows[bag.values])
    return (sums / np.maximum(lengths, 1)[:, None]).astype(np.float32)


def _item_part(weights: StudentWeights, field: Field, items: ItemFeatures) -> Floats:
    """Return what one item-side field adds for every item row [items, H + d + 1]."""
    if field.kind == "dense":
        x = items.dense[field.name]
        hidden = x @ weights.arrays[f"first.{field.name}"].T
        linear = x @ weights.arrays[f"linear.{field.name}"]
        factors = np.zeros((len(x), weights.width), dtype=np.float32)
        return np.concatenate([hidden, factors, linear[:, None]], axis=1)
    if field.kind == "vector":
        x = items.dense[field.name]
        e = x @ weights.arrays[f"project.{field.name}"].T
        return contribution(weights, field, e, x @ weights.arrays[f"linear.{field.name}"])
    e, linear = _table(weights, field)
    if field.kind == "bag":
        pooled = _pool(np.concatenate([e, linear[:, None]], axis=1), items.bags[field.name])
        return contribution(weights, field, pooled[:, :-1], pooled[:, -1])
    rows = items.ids[field.name]
    return contribution(weights, field, e[rows], linear[rows])


def _is_separate(field: Field, fold: Literal["item", "field"]) -> bool:
    return fold == "field" and field.kind == "categorical"


def _shares_item_rows(schema: Schema, field: Field) -> bool:
    return field.vocabulary == schema.field(ITEM).vocabulary


def _folded_fields(schema: Schema, fold: Literal["item", "field"]) -> tuple[Field, ...]:
    return tuple(f for f in schema.of(side="item") if not _is_separate(f, fold))


def fold_student(weights: StudentWeights, items: ItemFeatures, fold: Literal["item", "field"]) -> FoldedStudent:
    """Return the student as terms over float tables; same scores as the student, up to rounding."""
    schema = weights.schema
    terms = [Term("item", ITEM, "item", "row", "item", "item", "folded")]
    together = sum((_item_part(weights, f, items) for f in _folded_fields(schema, fold)), start=np.float32(0))
    tables = {"item": FloatTable("item", (View("item", np.asarray(together, dtype=np.float32), ("item",)),))}
    codes: dict[str, NDArray[np.int32]] = {}
    for field in schema.fields:
        if field.side == "item":
            if _is_separate(field, fold):
                codes[field.name] = items.ids[field.name].astype(np.int32)
                terms.append(_add_folded(weights, field, tables))
        elif not field.is_lookup:
            terms.append(Term(field.name, field.name, field.side, "vector" if field.kind == "vector" else "dense"))
        elif field.kind != "bag" and not _shares_item_rows(schema, field):
            terms.append(_add_folded(weights, field, tables))
        else:
            terms.append(_add_compact(weights, field, tables, items))
    return FoldedStudent(weights, tuple(terms), tables, codes)


def _add_folded(weights: StudentWeights, field: Field, tables: dict[str, FloatTable]) -> Term:
    name = f"{field.name}.folded"
    values = contribution(weights, field, *_table(weights, field))
    tables[name] = FloatTable(field.vocabulary or "", (View(name, values, (field.name,)),))
    return Term(field.name, field.name, field.side, "row", name, name, "folded")


def _add_compact(weights: StudentWeights, field: Field, tables: dict[str, FloatTable], items: ItemFeatures) -> Term:
    """Add a field's compact rows: to the table of the items if it looks up items (a history), which then pays nothing
    for keys and little for numbers, else to the table of its vocabulary.
    """
    name = field.vocabulary or ""
    host, view = name, View(name, weights.tables[name], ())
    if name == weights.schema.field(ITEM).vocabulary:
        if f"{ITEM}.folded" in tables:
            host = f"{ITEM}.folded"
        else:
            host, view = "item", View(name, weights.tables[name][items.ids[ITEM]], (), items.ids[ITEM])
    views = tables[host].views if host in tables else ()
    same = next((view for view in views if view.name == name), view)
    others = tuple(view for view in views if view is not same)
    used = replace(same, fields=(*same.fields, field.name))
    tables[host] = FloatTable(tables[host].keys if host in tables else name, (*others, used))
    return Term(field.name, field.name, field.side, "bag" if field.kind == "bag" else "row", host, name, "compact")
