"""The form of a log before its rows are read: its schema, and a stand-in data set of that schema."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.data.convert import is_text
from recsys_kd.data.counts import Counts
from recsys_kd.data.dataset import SPLITS, Dataset
from recsys_kd.data.drift import value_type
from recsys_kd.data.layout import Layout
from recsys_kd.schema import ITEM, USER, Field, KeyKind, Schema, Vocabulary
from recsys_kd.settings import FieldConfig

_ITEMS = 2
"""Of a stand-in: one, and the unknown one."""


def field_of(config: FieldConfig, mean: float = 0.0, std: float = 1.0) -> Field:
    """Return a recipe's field as a model knows it; a dense one with its mean and standard deviation."""
    kind, side = config.kind, config.side
    if kind in ("categorical", "bag"):
        return Field(config.name, kind, side, config.vocabulary or config.name, max_length=config.max_length)
    if kind == "vector":
        return Field(config.name, kind, side, dim=config.dim, missing=config.missing)
    return Field(config.name, kind, side, mean=mean, std=std, missing=config.missing)


def key_kind_of(kind: pa.DataType) -> KeyKind:
    """Return what the raw ids of a column, or of its lists, are."""
    return "string" if is_text(value_type(kind) or kind) else "int64"


def schema_of(fields: tuple[FieldConfig, ...], layout: Layout, rows: Mapping[str, int]) -> Schema:
    """Return the schema of a log whose vocabularies have so many `rows` each, the fallback's included."""
    known = {name: Vocabulary(name, size, key_kind_of(layout.types[name])) for name, size in rows.items()}
    return Schema((Field(USER, "id", "request", USER), Field(ITEM, "id", "item", ITEM), *map(field_of, fields)), known)


class Outline(Dataset):
    """A log of one row per split, one item and one id per vocabulary, all of them 0: what depends on form alone.

    Bags are empty, so that nothing made of it is larger than what any log of this schema makes.
    """

    def __init__(self, fields: tuple[FieldConfig, ...], layout: Layout) -> None:
        own = [f.name for f in fields if f.kind in ("categorical", "bag") and f.vocabulary in (None, f.name)]
        schema = schema_of(fields, layout, dict.fromkeys((ITEM, USER, *own), 2))
        splits = {name: range(at, at + 1) for at, name in enumerate(SPLITS)}
        super().__init__(Path(), schema, splits, Counts(), len(SPLITS), ())

    def _load(self, name: str) -> NDArray[np.generic]:
        where, _, column = name.partition("/")
        rows = {"rows": len(self), "items": _ITEMS, "keys": 1}[where]
        if column.endswith(".values"):
            return np.zeros(0, dtype=np.int64)
        if column.endswith(".offsets"):
            return np.zeros(rows + 1, dtype=np.int64)
        field = next((f for f in self.schema.fields if f.name == column and where != "keys"), None)
        if field is None or field.is_lookup:
            return np.zeros(rows, dtype=np.int64)
        return np.zeros((rows, field.dim), dtype=np.float32)
