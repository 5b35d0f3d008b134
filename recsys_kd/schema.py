"""What a model is fed: fields, the side each belongs to, and the size of every vocabulary.

A `Schema` is made when the logs are encoded and travels with the model to the serving host, so it is plain
dataclasses and JSON. Rows of a vocabulary are numbered 0 .. size-2 for known ids; the last row, `size - 1`, is
the *fallback*: ids never seen, too rare, or pruned. A fallback is never row 0 and never a neighbour's row.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["id", "categorical", "bag", "dense", "vector"]
Side = Literal["request", "item", "candidate"]
KeyKind = Literal["int64", "string"]

USER = "user_id"
ITEM = "item_id"
LEAST_STD = 1e-12
"""The least standard deviation of a dense field; one that varies less is taken as constant, and divided by 1."""


@dataclass(frozen=True)
class Vocabulary:
    """A set of raw ids that rows are looked up by.

    `size` counts rows, fallback included. String ids are known by the signed 64-bit hash of
    `recsys_kd.ids.hash_string`, so every key is an int64 whatever the log holds.
    """

    name: str
    size: int
    keys: KeyKind

    @property
    def fallback(self) -> int:
        """Row of ids that have none of their own."""
        return self.size - 1


@dataclass(frozen=True)
class Field:
    """One input of the model.

    id, categorical: one row of `vocabulary`. bag: any number of rows of `vocabulary`, mean-pooled.
    dense: one number, standardized as (x - mean) / std. vector: `dim` numbers, used as they are.
    """

    name: str
    kind: Kind
    side: Side
    vocabulary: str | None = None
    dim: int = 1
    mean: float = 0.0
    std: float = 1.0
    max_length: int = 0
    missing: Literal["quarantine", "accept"] = "quarantine"
    """Whether a missing number is refused, or taken as 0 after standardizing: the mean, or the zero vector."""

    @property
    def is_lookup(self) -> bool:
        """Whether the field's values are rows of a vocabulary."""
        return self.vocabulary is not None


@dataclass(frozen=True)
class Schema:
    """All fields of a model, `user_id` and `item_id` first, and the vocabularies they name."""

    fields: tuple[Field, ...]
    vocabularies: Mapping[str, Vocabulary]

    def field(self, name: str) -> Field:
        """Return the field called `name`; KeyError if there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def of(self, *, side: Side | None = None, kinds: tuple[Kind, ...] | None = None) -> tuple[Field, ...]:
        """Return the fields of a side and of some kinds, in order."""
        return tuple(f for f in self.fields if (side is None or f.side == side) and (kinds is None or f.kind in kinds))

    def rows(self, field: Field) -> int:
        """Return how many rows the field's vocabulary has, fallback included."""
        if field.vocabulary is None:
            raise KeyError(f"field '{field.name}' has no vocabulary")
        return self.vocabularies[field.vocabulary].size

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the input contract: names, kinds, sides, vocabularies and dims, not tonight's sizes or means."""
        contract = [
            [f.name, f.kind, f.side, f.vocabulary, f.dim, f.vocabulary and self.vocabularies[f.vocabulary].keys]
            for f in self.fields
        ]
        return hashlib.sha256(json.dumps(contract, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and dicts, as stored in manifests."""
        return {
            "fields": [asdict(f) for f in self.fields],
            "vocabularies": [asdict(v) for v in self.vocabularies.values()],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Schema":
        """Rebuild from `to_json`; KeyError or TypeError where keys are missing or unknown."""
        vocabularies = [Vocabulary(**v) for v in data["vocabularies"]]
        return Schema(tuple(Field(**f) for f in data["fields"]), {v.name: v for v in vocabularies})
