"""Item-side fields: one value per item, from the catalogue, or the last one that the training log showed."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.data.checks import vectors_of
from recsys_kd.data.convert import Ints, Mask, TextKeys, keys_of, numbers, sound_text
from recsys_kd.data.files import indispensable, read_table
from recsys_kd.data.layout import column_of
from recsys_kd.errors import InputError
from recsys_kd.settings import DataConfig, FieldConfig

NULL_KEY = np.iinfo(np.int64).min
"""Stands for a missing category; no vocabulary holds it."""


class BadCatalogue(InputError):
    """The catalogue can't be keyed by item."""


@dataclass(frozen=True)
class RawBag:
    """Keys of multi-valued cells: cell i holds values[offsets[i]:offsets[i + 1]]."""

    values: Ints
    offsets: Ints


RawField = NDArray[np.generic] | RawBag


def bag_of(array: pa.Array, limit: int, text: TextKeys) -> RawBag:
    """Return the last `limit` values of every list; a null list is empty, null values are left out."""
    lists = array.cast(pa.list_(array.type.value_type)) if not pa.types.is_list(array.type) else array
    lengths = np.asarray(lists.value_lengths().fill_null(0)).astype(np.int64)
    value = keys_of(lists.flatten(), text)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    from_end = np.repeat(offsets[1:], lengths) - np.arange(offsets[-1])
    keep = from_end <= limit
    if value.null is not None:
        keep &= ~value.null
    cell = np.repeat(np.arange(len(lengths)), lengths)[keep]
    counts = np.bincount(cell, minlength=len(lengths))
    return RawBag(value.values[keep].astype(np.int64), np.concatenate([[0], np.cumsum(counts)]))


def categories_of(array: pa.Array, text: TextKeys) -> Ints:
    """Return int64 keys, NULL_KEY where the category is missing."""
    value = keys_of(array, text)
    keys = value.values.astype(np.int64)
    if value.null is not None:
        keys = np.where(value.null, NULL_KEY, keys)
    return keys


@dataclass(frozen=True)
class Catalogue:
    """Item keys, sorted, and fields in that order; `bad` counts the items without a usable value, per field.

    example: the first item, as a message shows it.
    """

    keys: Ints
    fields: dict[str, RawField]
    bad: dict[str, int]
    example: str = "no item"


def read_catalogue(config: DataConfig, fields: tuple[FieldConfig, ...]) -> Catalogue:
    """Return the item table; an empty one where the recipe names none. Raises: BadCatalogue, BadFile."""
    path = config.catalogue
    if path is None:
        return Catalogue(np.zeros(0, dtype=np.int64), {}, {})
    name = config.columns.item_id
    with indispensable():
        table = read_table(path, [name, *(column_of(f) for f in fields)])
    for column in table.column_names:
        if sound_text(table[column].combine_chunks())[1] is not None:
            raise BadCatalogue(f"{path}: column '{column}' holds text that is not UTF-8; write it again")
    text = TextKeys()
    keys = keys_of(table[name].combine_chunks(), text)
    none = np.isin(keys.values, list(text.blank)) if keys.null is None else keys.null
    if none.any():
        raise BadCatalogue(f"{path}: {int(none.sum())} rows have no '{name}'; remove them")
    order = np.argsort(keys.values, kind="stable")
    ids = keys.values.astype(np.int64)[order]
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        shown = table[name][int(order[twice[0]])].as_py()
        raise BadCatalogue(f"{path}: item {shown!r} has more than one row; keep one row per item")
    picked = table.take(pa.array(order)).combine_chunks()
    found, bad = {}, {}
    for field in fields:
        array = picked[column_of(field)].combine_chunks()
        found[field.name], problem = _raw_field(field, array)
        if problem is not None:
            bad[field.name] = _check(config, field, array, problem, picked[name])
    example = repr(table[name][0].as_py()) if len(table) else "no item"
    return Catalogue(ids, found, {name: items for name, items in bad.items() if items}, example)


@dataclass(frozen=True)
class _Problem:
    """Masks [items]: values that are missing, and values of another kind, which `missing: accept` does not cover."""

    missing: Mask
    wrong: Mask


def _raw_field(field: FieldConfig, array: pa.Array) -> tuple[RawField, _Problem | None]:
    """Return a field's column before any vocabulary is known; missing and infinite numbers are NaN."""
    if field.kind == "categorical":
        return categories_of(array, TextKeys()), None
    if field.kind == "bag":
        return bag_of(array, field.max_length, TextKeys()), None
    if field.kind == "vector":
        vectors = vectors_of(array, field.dim)
        return vectors.values, _Problem(vectors.missing, vectors.wrong_length)
    value = numbers(array)
    out = value.values.astype(np.float32, copy=True)
    if value.null is not None:
        out[value.null] = np.nan
    out[~np.isfinite(out)] = np.nan
    return out, _Problem(np.isnan(out), np.zeros(len(out), dtype=bool))


def _check(config: DataConfig, field: FieldConfig, array: pa.Array, problem: _Problem, items: pa.Array) -> int:
    """Return how many items have no usable value. Raises: BadCatalogue if they are more than the recipe allows."""
    bad = problem.wrong | problem.missing
    refused = problem.wrong if field.missing == "accept" else bad
    if refused.sum() > config.max_quarantine * len(bad):
        at = int(np.flatnonzero(refused)[0])
        value, advice = array[at].as_py(), "or set the field's `missing: accept`"
        why = "is null" if value is None else "is not finite"
        if isinstance(value, float) and isfinite(value):
            why = f"is {value:g}, more than a float32 holds"
        if problem.wrong[at]:
            why, advice = f"has {len(value)} numbers", f"or give the length of the field, now `dim: {field.dim}`"
        raise BadCatalogue(
            f"{config.catalogue}: column '{column_of(field)}': {int(refused.sum()):,} of {len(bad):,} items have no "
            f"usable value (the first, item {items[at].as_py()}, {why}), more than data.max_quarantine "
            f"{config.max_quarantine:.2%}; mend the catalogue, raise data.max_quarantine, {advice}"
        )
    return int(bad.sum())


def spread(raw: Mapping[str, RawField], at: Ints, known: int) -> dict[str, RawField]:
    """Return fields reordered to entries `at`; entry `known` (one past the last) is "missing"."""
    out: dict[str, RawField] = {}
    for name, values in raw.items():
        if isinstance(values, RawBag):
            lengths = np.append(np.diff(values.offsets), 0)[at]
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            starts = np.append(values.offsets[:-1], 0)[at]
            index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
            out[name] = RawBag(values.values[index], offsets)
            continue
        missing = np.zeros((1, *values.shape[1:]), dtype=values.dtype)
        missing[...] = NULL_KEY if values.dtype.kind == "i" else (np.nan if values.ndim == 1 else 0.0)
        out[name] = np.concatenate([values, missing])[at]
    return out
