"""Rules on what an artifact says of its fields and terms, before any of its numbers are looked at.

Each returns what is wrong in words, or None.
"""

from recsys_kd.artifact.manifest import Manifest
from recsys_kd.schema import ITEM, LEAST_STD, Field, Schema
from recsys_kd.tables import Term

_KINDS = ("id", "categorical", "bag", "dense", "vector")
_SIDES = ("request", "item", "candidate")
_TERM_KINDS = {"id": "row", "categorical": "row", "bag": "bag", "dense": "dense", "vector": "vector"}
_MOST = 65536


def schema_fault(schema: Schema) -> str | None:
    """Check fields and vocabularies for being such as a request can be encoded by."""
    names = [f.name for f in schema.fields]
    if len(set(names)) < len(names):
        return f"field '{next(n for n in names if names.count(n) > 1)}' is there twice"
    item = next((f for f in schema.fields if f.name == ITEM), None)
    if item is None or item.side != "item" or not item.is_lookup:
        return f"there is no looked-up item-side field '{ITEM}'"
    for vocabulary in schema.vocabularies.values():
        if vocabulary.keys not in ("int64", "string"):
            return f"vocabulary '{vocabulary.name}' has keys {vocabulary.keys!r}"
    return next((fault for field in schema.fields if (fault := _field_fault(schema, field))), None)


def _field_fault(schema: Schema, field: Field) -> str | None:
    if field.kind not in _KINDS or field.side not in _SIDES:
        return f"field '{field.name}' has kind {field.kind!r} and side {field.side!r}"
    if (field.vocabulary is None) != (field.kind in ("dense", "vector")):
        return f"field '{field.name}' of kind {field.kind} has vocabulary {field.vocabulary!r}"
    if field.vocabulary is not None and field.vocabulary not in schema.vocabularies:
        return f"field '{field.name}' names vocabulary '{field.vocabulary}', which is not there"
    if not 1 <= field.dim <= _MOST or field.max_length < 0:
        return f"field '{field.name}' has dim {field.dim} and max_length {field.max_length}"
    if not field.std >= LEAST_STD:  # numbers are divided by it as float32, which holds 1e-300 as 0
        return f"field '{field.name}' has std {field.std}, and no night gives less than {LEAST_STD}"
    return None


def term_fault(manifest: Manifest, term: Term) -> str | None:
    """Check one term against its field."""
    field = next((f for f in manifest.schema.fields if f.name == term.field), None)
    if field is None:
        return f"term '{term.name}' names field '{term.field}', which the schema lacks"
    if field.side != term.side or (term.table is None) != (term.kind in ("dense", "vector")):
        return f"term '{term.name}' disagrees with field '{field.name}' on side or table"
    if term.layout not in ("compact", "folded") or (term.table is None and term.layout == "folded"):
        return f"term '{term.name}' has kind {term.kind!r} and layout {term.layout!r}"
    # All item-side fields of an item are one row: what the term of the items stands for is no matter of its field.
    if term.kind != ("row" if term.side == "item" else _TERM_KINDS[field.kind]):
        return f"term '{term.name}' is of kind {term.kind!r}, field '{field.name}' of kind {field.kind!r}"
    if term.side == "candidate" and term.kind == "bag":
        return f"term '{term.name}': a candidate-side bag can't be scored"
    if term.side == "item" and term.table is None:
        return f"term '{term.name}' is item-side and has no table"
    return None


def terms_fault(manifest: Manifest) -> str | None:
    """Check the terms together: names differ, and the items have just the one term that others are coded by."""
    names = [t.name for t in manifest.terms]
    if len(set(names)) < len(names):
        return f"term '{next(n for n in names if names.count(n) > 1)}' is there twice"
    items = [(t.table, t.kind, t.layout) for t in manifest.terms if t.name == "item" and t.side == "item"]
    if items != [("item", "row", "folded")]:
        return f"one folded term 'item' over table 'item' is needed, found {items}"
    return None
