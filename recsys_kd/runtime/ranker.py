"""Score candidates from an artifact: request side folded once, one row per candidate, no torch.

Scores of one candidate agree to 1e-6 whatever others are in the request (matrix products may round differently by
shape). Missing values: a category that is None, never seen or pruned uses the fallback row; an absent history is empty;
a missing number is refused, unless the recipe said `missing: accept`: then it is the mean, as in training.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.manifest import Golden, Manifest
from recsys_kd.artifact.read import open_artifact
from recsys_kd.batch import Bag
from recsys_kd.errors import InputError
from recsys_kd.ids import hash_string
from recsys_kd.runtime.sums import bag_term, dense_term, finish, row_term
from recsys_kd.schema import ITEM, Field
from recsys_kd.tables import CompiledStudent, Term

Floats = NDArray[np.float32]
Keys = NDArray[np.int64]
GOLDEN_TOLERANCE = 1e-4


class BadRequest(InputError):
    """A request does not hold what the model's schema asks for."""


@dataclass(frozen=True)
class Encoded:
    """One side's values: keys per lookup field, and standardized numbers [N, dim] per dense or vector field."""

    keys: Mapping[str, Keys]
    bags: Mapping[str, Keys]
    dense: Mapping[str, Floats]


class Ranker:
    """A verified model in memory; safe to share between threads, `fallback_counts` being approximate then."""

    def __init__(self, student: CompiledStudent, manifest: Manifest | None = None) -> None:
        self.student = student
        self.schema = student.schema
        self.manifest = manifest
        self.fallback_counts: Counter[str] = Counter()

    @staticmethod
    def open(path: Path | str) -> "Ranker":
        """Verify an artifact, golden queries included, and return its ranker. Raises: ArtifactRefused."""
        artifact, student = open_artifact(Path(path))
        ranker = Ranker(student, artifact.manifest)
        for i, golden in enumerate(artifact.manifest.golden):
            ranker._check_golden(Path(path), i, golden)
        ranker.fallback_counts.clear()
        return ranker

    def _check_golden(self, path: Path, number: int, golden: Golden) -> None:
        try:
            got = self.score_encoded(*decode_golden(self.student, golden))
            want = np.array(golden.logits, dtype=np.float32)
            worst = float(np.abs(got - want).max(initial=0.0)) if got.shape == want.shape else np.inf
        except (BadRequest, KeyError, IndexError, ValueError, TypeError) as error:
            raise ArtifactRefused(path, "golden", f"query {number} can't be scored ({error})") from None
        if not worst <= GOLDEN_TOLERANCE:
            raise ArtifactRefused(path, "golden", f"query {number} is off by {worst:.2g} logits")

    # Raw values in.

    def score(
        self,
        request: Mapping[str, Any],
        candidate_ids: Sequence[int] | Sequence[str] | NDArray[Any],
        candidate_features: Mapping[str, Any] | None = None,
        *,
        logits: bool = False,
    ) -> Floats:
        """Return the click probability (or logit) of every candidate, float32 [N].

        request: `user_id` and the request-side fields by name. candidate_ids: raw ids, as in the log.
        candidate_features: per candidate-side field, one value per candidate. Raises: BadRequest.
        """
        fields = self.schema.of(side="request")
        self._check_names(request, {f.name for f in fields}, "request")
        encoded = self._encode(fields, {f.name: [request.get(f.name)] for f in fields}, 1)
        items = self._keys(self.schema.field(ITEM), candidate_ids)
        extra = self.schema.of(side="candidate")
        given = candidate_features or {}
        self._check_names(given, {f.name for f in extra}, "candidate_features")
        features = self._encode(extra, {f.name: given.get(f.name) for f in extra}, len(items))
        scores = self.score_encoded(encoded, items, features)
        return scores if logits else (1.0 / (1.0 + np.exp(-scores))).astype(np.float32)

    def rank(
        self, request: Mapping[str, Any], candidate_ids: Sequence[int] | Sequence[str] | NDArray[Any], k: int
    ) -> tuple[list[Any], Floats]:
        """Return the k best candidates, best first, with their probabilities; ties keep the order given."""
        scores = self.score(request, candidate_ids)
        best = np.argsort(-scores, kind="stable")[:k]
        return [candidate_ids[int(i)] for i in best], scores[best]

    def score_many(self, requests: Sequence[tuple[Mapping[str, Any], Sequence[int] | Sequence[str]]]) -> list[Floats]:
        """Return the scores of several requests, each as `score` would give them."""
        return [self.score(request, candidates) for request, candidates in requests]

    def _check_names(self, given: Mapping[str, Any], known: set[str], what: str) -> None:
        unknown = set(given) - known
        if unknown:
            raise BadRequest(f"{what}: unknown field {sorted(unknown)[0]!r}; this model takes {sorted(known)}")

    def _encode(self, fields: tuple[Field, ...], values: Mapping[str, Any], rows: int) -> Encoded:
        keys, bags, dense = {}, {}, {}
        for field in fields:
            value = values[field.name]
            if field.kind == "bag":
                bags[field.name] = self._bag(field, value)
            elif field.is_lookup:
                keys[field.name] = self._keys(field, [None] * rows if value is None else value)
            else:
                dense[field.name] = _numbers(field, value, rows)
            if field.name in keys and len(keys[field.name]) != rows:
                raise BadRequest(f"field '{field.name}': {len(keys[field.name])} values for {rows} candidates")
        return Encoded(keys, bags, dense)

    def _bag(self, field: Field, value: Any) -> Keys:
        inside = value[0] if isinstance(value, list) and len(value) == 1 else value
        if inside is None:
            return np.zeros(0, dtype=np.int64)
        if isinstance(inside, str) or not isinstance(inside, Sequence | np.ndarray):
            raise BadRequest(f"field '{field.name}': a list of ids is expected, got {inside!r}")
        return self._keys(field, inside[-field.max_length :] if field.max_length else inside)

    def _keys(self, field: Field, values: Any) -> Keys:
        kind = self.schema.vocabularies[field.vocabulary or ""].keys
        if kind == "int64" and isinstance(values, np.ndarray) and values.dtype.kind in "iu":
            return values.astype(np.int64, copy=False)
        out = np.empty(len(values), dtype=np.int64)
        for i, value in enumerate(values):
            out[i] = _key(field, kind, value)
        return out

    # Encoded values in.

    def score_encoded(self, request: Encoded, items: Keys, features: Encoded) -> Floats:
        """Return logits [N] for one request given as keys and standardized numbers."""
        shared = np.zeros((1, self.student.first + self.student.width + 1), dtype=np.float32)
        sums = np.zeros((len(items), shared.shape[1]), dtype=np.float32)
        item_rows = self._rows("item", ITEM, items)
        for term in self.student.terms:
            if term.side == "request":
                shared += self._term(term, request)
            elif term.side == "candidate":
                sums += self._term(term, features)
            elif term.name == "item":
                sums += row_term(self.student, term, item_rows)
            else:
                sums += row_term(self.student, term, self.student.codes[term.name][item_rows].astype(np.int64))
        return finish(self.student, sums + shared)

    def _term(self, term: Term, values: Encoded) -> Floats:
        if term.kind == "bag":
            rows = self._rows(term.table or "", term.field, values.bags[term.field])
            return bag_term(self.student, term, Bag(rows, np.array([0, len(rows)])))
        if term.kind == "row":
            return row_term(self.student, term, self._rows(term.table or "", term.field, values.keys[term.field]))
        return dense_term(self.student, term, values.dense[term.field])

    def _rows(self, table: str, field: str, keys: Keys) -> Keys:
        index = self.student.indexes[table]
        rows = index.rows(keys)
        missed = int((rows == len(index)).sum())
        if missed:
            self.fallback_counts[field] += missed
        return rows


def _key(field: Field, kind: str, value: Any) -> int:
    if value is None:
        return int(np.iinfo(np.int64).min)
    if kind == "string":
        if not isinstance(value, str):
            raise BadRequest(f"field '{field.name}': ids are strings in this model, got {value!r}")
        return hash_string(value)
    if isinstance(value, str | float) or not isinstance(value, int | np.integer):
        raise BadRequest(f"field '{field.name}': ids are integers in this model, got {value!r}")
    if not -(2**63) <= int(value) < 2**63:
        raise BadRequest(f"field '{field.name}': {value} does not fit in 64 bits")
    return int(value)


def _numbers(field: Field, value: Any, rows: int) -> Floats:
    if field.missing == "accept":
        return _with_missing(field, value, rows)
    try:
        array = np.asarray(value, dtype=np.float32).reshape(rows, field.dim)
    except (TypeError, ValueError):
        shape = f"{field.dim} numbers" if field.dim > 1 else "a number"
        raise BadRequest(f"field '{field.name}': {shape} per row expected for {rows} row(s), got {value!r}") from None
    if not np.isfinite(array).all():
        raise BadRequest(f"field '{field.name}': NaN or infinite values can't be scored")
    if field.kind == "vector":
        return array
    return (array - np.float32(field.mean)) / np.float32(field.std)


def _with_missing(field: Field, value: Any, rows: int) -> Floats:
    """Return standardized numbers, 0 where there are none: what training saw."""
    strict, each = replace(field, missing="quarantine"), [None] * rows if value is None else value
    try:
        gaps = [np.full(field.dim, np.nan) if v is None else np.asarray(v, np.float32).reshape(field.dim) for v in each]
    except (TypeError, ValueError):
        return _numbers(strict, value, rows)  # which says what is wrong
    whole = [np.isfinite(numbers).all() for numbers in gaps]
    known = [numbers if ok else np.zeros(field.dim) for numbers, ok in zip(gaps, whole, strict=True)]
    return np.where(np.array(whole, dtype=bool)[:, None], _numbers(strict, known, rows), np.float32(0.0))


def decode_golden(student: CompiledStudent, golden: Golden) -> tuple[Encoded, Keys, Encoded]:
    """Return a golden query's request, candidates and candidate features in encoded form."""
    schema = student.schema
    request = Encoded(
        {name: np.array([key], dtype=np.int64) for name, key in golden.ids.items()},
        {name: np.array(keys, dtype=np.int64) for name, keys in golden.bags.items()},
        {name: np.array(x, dtype=np.float32)[None] for name, x in golden.dense.items()},
    )
    lookups = {f.name for f in schema.of(side="candidate") if f.is_lookup}
    features = Encoded(
        {n: np.array(v, dtype=np.int64) for n, v in golden.features.items() if n in lookups},
        {},
        {n: np.array(v, dtype=np.float32) for n, v in golden.features.items() if n not in lookups},
    )
    return request, np.array(golden.candidates, dtype=np.int64), features
