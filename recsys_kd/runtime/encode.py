"""Raw values of a request and its candidates -> keys and standardized numbers, checked.

Missing values: a category that is None, never seen or pruned uses the fallback row; an absent history is empty; a
missing number is refused, unless the recipe said `missing: accept`: then it is the mean (of a vector, zeros), as in
training. True and False are the numbers 1 and 0, as a log's columns of them are, and no ids.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_kd.artifact.manifest import Golden
from recsys_kd.runtime.library import Library
from recsys_kd.runtime.values import (
    LARGEST,
    MISSING,
    BadRequest,
    Floats,
    Keys,
    int_array,
    is_list,
    key_of,
    largest,
    numbers,
    plain,
    refuse_hidden,
    shown,
    standardized,
)
from recsys_kd.schema import ITEM, Field, Schema

__all__ = ["BadRequest", "Encoder", "Features", "Request", "Slots"]

_NO_KEYS = np.zeros(0, dtype=np.int64)
_FEW = 32
"""Below so many ids a call into the library costs more than it saves."""


@dataclass(frozen=True)
class Request:
    """One request: a key per looked-up field; keys per bag; all standardized numbers one after another, float32."""

    keys: Sequence[int]
    bags: Sequence[Keys]
    numbers: Floats


@dataclass(frozen=True)
class Features:
    """Candidate-side fields: int64 [N] per looked-up field; standardized float32 [N, dim] per dense or vector field."""

    keys: Sequence[Keys]
    numbers: Sequence[Floats]


NO_FEATURES = Features((), ())


@dataclass(frozen=True)
class Slots:
    """The fields of one side in the order in which their values lie: looked-up ones, bags, numbers."""

    keys: tuple[Field, ...]
    bags: tuple[Field, ...]
    numbers: tuple[Field, ...]
    names: frozenset[str]

    @staticmethod
    def of(fields: tuple[Field, ...]) -> "Slots":
        """Return the slots of some fields."""
        return Slots(
            tuple(f for f in fields if f.is_lookup and f.kind != "bag"),
            tuple(f for f in fields if f.kind == "bag"),
            tuple(f for f in fields if not f.is_lookup),
            frozenset(f.name for f in fields),
        )


def _standards(fields: tuple[Field, ...]) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of every number, float32 [all dims]; vectors are used as they are."""
    mean = [0.0 if f.kind == "vector" else f.mean for f in fields for _ in range(f.dim)]
    std = [1.0 if f.kind == "vector" else f.std for f in fields for _ in range(f.dim)]
    return np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)


class Encoder:
    """Encodes what a model's schema describes; `library`, where there is one, reads long lists of ids."""

    def __init__(self, schema: Schema, library: Library | None) -> None:
        self.schema, self.library = schema, library
        self.item = schema.field(ITEM)
        self.request_slots = Slots.of(schema.of(side="request"))
        self.candidate_slots = Slots.of(schema.of(side="candidate"))
        self._strings = {
            f.name: schema.vocabularies[f.vocabulary].keys == "string" for f in schema.fields if f.vocabulary
        }
        self._mean, self._std = _standards(self.request_slots.numbers)

    def has_strings(self, field: Field) -> bool:
        """Return whether a field's ids are strings."""
        return field.vocabulary is not None and self._strings[field.name]

    def request(self, given: Mapping[str, Any]) -> Request:
        """Encode a request. Raises: BadRequest."""
        slots = self.request_slots
        _check_names(given, slots.names, "request")
        return Request(
            [self._key(f, given.get(f.name)) for f in slots.keys],
            [self._bag(f, given.get(f.name)) for f in slots.bags],
            self._request_numbers(given),
        )

    def items(self, candidate_ids: Any) -> Keys:
        """Encode candidates' ids. Raises: BadRequest."""
        return self._keys(self.item, candidate_ids)

    def features(self, given: Mapping[str, Any] | None, rows: int) -> Features:
        """Encode the candidate-side fields of `rows` candidates. Raises: BadRequest."""
        slots = self.candidate_slots
        _check_names(given or {}, slots.names, "candidate_features")
        if not slots.names:
            return NO_FEATURES
        values = given or {}
        return Features(
            [self._column(f, values.get(f.name), rows) for f in slots.keys],
            [standardized(f, numbers(f, values.get(f.name), rows)) for f in slots.numbers],
        )

    def golden(self, golden: Golden) -> tuple[Request, Keys, Features]:
        """Decode a golden query; KeyError, TypeError or ValueError where it does not fit the schema."""
        own, each = self.request_slots, self.candidate_slots
        dense = [np.array(golden.dense[f.name], dtype=np.float32).reshape(f.dim) for f in own.numbers]
        items = np.array(golden.candidates, dtype=np.int64).reshape(-1)
        request = Request(
            [int(np.int64(golden.ids[f.name])) for f in own.keys],
            [np.array(golden.bags[f.name], dtype=np.int64).reshape(-1) for f in own.bags],
            np.concatenate([np.zeros(0, dtype=np.float32), *dense]),
        )
        features = Features(
            [np.array(golden.features[f.name], dtype=np.int64).reshape(len(items)) for f in each.keys],
            [np.array(golden.features[f.name], dtype=np.float32).reshape(len(items), f.dim) for f in each.numbers],
        )
        return request, items, features

    def _key(self, field: Field, value: Any) -> int:
        if type(value) is int and not self._strings[field.name] and -(2**63) <= value < 2**63:
            return value
        return key_of(field, self._strings[field.name], value)

    def _column(self, field: Field, values: Any, rows: int) -> Keys:
        keys = np.full(rows, MISSING) if values is None else self._keys(field, values)
        if len(keys) != rows:
            raise BadRequest(f"field '{field.name}': {len(keys)} values for {rows} candidates; give one for each")
        return keys

    def _bag(self, field: Field, value: Any) -> Keys:
        if value is None:
            return _NO_KEYS
        if not is_list(value):
            raise BadRequest(f"field '{field.name}': a list of ids is expected, got {shown(value)}")
        return self._keys(field, value[-field.max_length :] if field.max_length else value)

    def _keys(self, field: Field, values: Any) -> Keys:
        strings = self._strings[field.name]
        if isinstance(values, np.ndarray):
            refuse_hidden(field, values)
            if values.dtype.kind in "iu" and values.ndim == 1 and not strings:
                return int_array(field, values)
            values = values.tolist()
        if not is_list(values):
            raise BadRequest(f"field '{field.name}': a list of ids is expected, got {shown(values)}")
        values = values if type(values) is list else list(values)
        found = self._fast(values, strings)
        if found is not None:
            return found
        return np.array([key_of(field, strings, value) for value in values], dtype=np.int64)

    def _fast(self, values: list[Any], strings: bool) -> Keys | None:
        """Return keys of a list that holds nothing unusual, else None."""
        if self.library is not None and (len(values) > _FEW or (strings and values)):
            return self.library.keys(values, strings=strings)
        if strings or not values or bool in map(type, values):
            return None
        try:
            return np.frombuffer(array("q", values), dtype=np.int64)
        except (TypeError, OverflowError):
            return None

    def _request_numbers(self, given: Mapping[str, Any]) -> Floats:
        fields = self.request_slots.numbers
        if not fields:
            return self._mean
        found = self._usual_numbers(given)
        if found is not None and largest(found) <= LARGEST:
            return found
        # Field by field, so that the first one that is wrong is named.
        return np.concatenate([standardized(f, numbers(f, [given.get(f.name)], 1))[0] for f in fields])

    def _usual_numbers(self, given: Mapping[str, Any]) -> Floats | None:
        """Return all numbers of a request at once, unchecked; None where any is unusual, or a vector."""
        if len(self._mean) > len(self.request_slots.numbers):
            return None
        try:
            values = [given[f.name] for f in self.request_slots.numbers]
            if any(isinstance(v, np.ndarray) and type(v) is not np.ndarray for v in values):
                return None  # it may hide some of its numbers
            raw = plain(np.array(values))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        if raw.shape != self._mean.shape:
            return None
        with np.errstate(over="ignore"):
            found: Floats = (raw - self._mean) / self._std
        return found


def _check_names(given: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    if not isinstance(given, Mapping):
        raise BadRequest(f"{what}: a mapping of field to value is expected, got {shown(given)}")
    if not given.keys() <= known:
        unknown = min(map(shown, given.keys() - known))
        raise BadRequest(f"{what}: unknown field {unknown}; this model takes {sorted(known)}")
