"""The manifest: what an artifact is, in canonical JSON whose SHA-256 names the artifact's folder."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from recsys_kd.artifact.typed import typed
from recsys_kd.schema import Field, Schema, Vocabulary
from recsys_kd.tables import Activations, Bits, Term

FORMAT = 3
WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
_TIER = frozenset({"more_bits", "more_dim"})


@dataclass(frozen=True)
class Golden:
    """A request in encoded form with the logits its candidates must get: the last check before a model serves.

    ids: key per lookup field. bags: keys. dense: standardized numbers. candidates: item keys.
    features: per candidate-side field, one entry per candidate.
    """

    ids: dict[str, int]
    bags: dict[str, list[int]]
    dense: dict[str, list[float]]
    candidates: list[int]
    features: dict[str, list[Any]]
    logits: list[float]


@dataclass(frozen=True)
class FileEntry:
    """A file beside the manifest."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class TableEntry:
    """A stored table: bits of its codes, and its `KeyIndex`, whose tensors are `<index>.starts` and `<index>.rests`.

    more_bits, more_dim: of the rows that refine some of its own (`RefinedRows`; tensors `more.<table>` and
    `hot.<table>`), 0 where there are none.
    """

    bits: Bits
    dim: int
    index: str
    key_base: int
    key_bits: int
    key_kept: int
    more_bits: int = 0
    more_dim: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values, of a second tier only where there is one: artifacts without are as they ever were."""
        plain = asdict(self)
        return plain if self.more_bits else {k: v for k, v in plain.items() if k not in _TIER}

    @staticmethod
    def from_json(data: Any) -> "TableEntry":
        """Rebuild from `to_json`; ValueError for anything else."""
        one_tier = isinstance(data, dict) and _TIER.isdisjoint(data)
        return typed(TableEntry, {**data, **dict.fromkeys(_TIER, 0)} if one_tier else data)


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from and what it was measured to be; all of it plain JSON."""

    name: str
    created: str
    data_digest: str
    recipe_digest: str
    teacher_digest: str
    parents: list[str] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    """`first` and `last` time (ms UTC) of the rows that it was trained or tuned on: they can't judge it."""


@dataclass(frozen=True)
class Manifest:
    """Everything about an artifact but its numbers."""

    schema: Schema
    width: int
    first: int
    terms: tuple[Term, ...]
    tables: Mapping[str, TableEntry]
    """Tables with the same keys share an index."""
    weights_bytes: int
    weights_sha256: str
    lineage: Lineage
    golden: tuple[Golden, ...]
    activations: Activations = "int16"

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `activations` only where they are not what they are by default."""
        plain = self.activations == "int16"
        return ({} if plain else {"activations": self.activations}) | {
            "format": FORMAT,
            "schema": self.schema.to_json(),
            "fingerprint": self.schema.fingerprint,
            "width": self.width,
            "first": self.first,
            "terms": [asdict(t) for t in self.terms],
            "tables": {table: entry.to_json() for table, entry in self.tables.items()},
            "files": {WEIGHTS: {"bytes": self.weights_bytes, "sha256": self.weights_sha256}},
            "lineage": asdict(self.lineage),
            "golden": [asdict(g) for g in self.golden],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Manifest":
        """Rebuild from `to_json`; KeyError, TypeError or ValueError for anything else."""
        keys = {"format", "schema", "fingerprint", "width", "first", "terms", "tables", "files", "lineage", "golden"}
        activations = data.get("activations", "int16")
        if set(data) - {"activations"} != keys:
            raise ValueError(f"keys {sorted((set(data) - {'activations'}) ^ keys)} are missing or unknown")
        if activations not in get_args(Activations):
            raise ValueError(f"activations {activations!r}, expected one of {', '.join(get_args(Activations))}")
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}, this version reads {FORMAT}")
        if set(data["files"]) != {WEIGHTS}:
            raise ValueError(f"files {sorted(data['files'])}, expected {WEIGHTS}")
        weights = typed(FileEntry, data["files"][WEIGHTS])
        return Manifest(
            _schema(data["schema"]),
            data["width"],
            data["first"],
            tuple(typed(Term, t) for t in data["terms"]),
            {table: TableEntry.from_json(entry) for table, entry in data["tables"].items()},
            weights.bytes,
            weights.sha256,
            typed(Lineage, data["lineage"]),
            tuple(typed(Golden, g) for g in data["golden"]),
            activations,
        )


def _schema(data: Any) -> Schema:
    vocabularies = [typed(Vocabulary, v) for v in data["vocabularies"]]
    return Schema(tuple(typed(Field, f) for f in data["fields"]), {v.name: v for v in vocabularies})


def canonical(data: Mapping[str, Any]) -> bytes:
    """Return the one JSON form that is hashed: sorted keys, no spaces, no NaN, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode()


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()
