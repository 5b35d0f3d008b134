"""Score candidates from an artifact: request side folded once, one row per candidate, no torch.

The native kernel scores where it is built, else its NumPy twin (see `library`). With the kernel a candidate's score is
the same, bit for bit, whatever others are in the request; with the twin within 1e-6 (matrix products may round
differently by shape).
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.manifest import Golden, Manifest
from recsys_kd.artifact.read import open_artifact
from recsys_kd.runtime.direct import DirectScorer
from recsys_kd.runtime.encode import BadRequest, Encoder, Features, Request
from recsys_kd.runtime.grid import on_grid
from recsys_kd.runtime.library import Kernel, kernel
from recsys_kd.runtime.native_scorer import NativeScorer, can_score
from recsys_kd.runtime.twin import NumpyScorer, probabilities
from recsys_kd.runtime.values import Keys, whole
from recsys_kd.tables import CompiledStudent

__all__ = ["BadRequest", "Ranker", "decode_golden"]

Floats = NDArray[np.float32]
Candidates = Sequence[int] | Sequence[str] | NDArray[Any]
GOLDEN_TOLERANCE = 1e-4


class Ranker:
    """A verified model in memory; safe to share between threads, `fallback_counts` being approximate then."""

    def __init__(self, student: CompiledStudent, manifest: Manifest | None = None, use: Kernel | None = None) -> None:
        self.student = student = on_grid(student)
        self.schema = student.schema
        self.manifest = manifest
        self.fallback_counts: Counter[str] = Counter()
        chosen = use or kernel()
        self._encoder = Encoder(student.schema, chosen.library)
        slots = self._encoder.request_slots, self._encoder.candidate_slots
        self._scorer: NativeScorer | NumpyScorer = NumpyScorer(student, *slots)
        self._direct: DirectScorer | None = None
        self.probabilities: Callable[[Floats], Floats] = probabilities
        """Turns logits [N] into the probabilities that `score` gives, to the last bit."""
        self.kernel = chosen.detail
        """Which kernel scores, in words."""
        if chosen.library is not None and can_score(student):
            self._scorer = NativeScorer(student, *slots, chosen.library)
            self._direct = DirectScorer(self._scorer, self._encoder)
            self.probabilities = chosen.library.probabilities
        elif chosen.library is not None:
            self.kernel = "numpy: the model holds what the native kernel does not know"

    @staticmethod
    def open(path: Path | str) -> "Ranker":
        """Verify an artifact, golden queries included, and return its ranker. Raises: ArtifactRefused."""
        path = Path(path)
        artifact, student = open_artifact(path)
        ranker = Ranker(student, artifact.manifest)
        if not any(golden.candidates for golden in artifact.manifest.golden):
            raise ArtifactRefused(path, "no-golden", "no golden query has candidates, so nothing proves its scores")
        for i, golden in enumerate(artifact.manifest.golden):
            ranker._check_golden(path, i, golden)
        ranker.fallback_counts.clear()
        return ranker

    def apart(self) -> "Ranker":
        """Return the same model with counts of its own, for what is scored beside the answers."""
        other = copy.copy(self)
        other.fallback_counts = Counter()
        return other

    def _check_golden(self, path: Path, number: int, golden: Golden) -> None:
        try:
            got = self.score_encoded(*self._encoder.golden(golden))
            want = np.array(golden.logits, dtype=np.float32)
            worst = float(np.abs(got - want).max(initial=0.0)) if got.shape == want.shape else np.inf
        except (BadRequest, KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
            raise ArtifactRefused(path, "golden", f"query {number} can't be scored ({error})") from None
        if not worst <= GOLDEN_TOLERANCE:
            raise ArtifactRefused(path, "golden", f"query {number} is off by {worst:.2g} logits")

    def score(
        self,
        request: Mapping[str, Any],
        candidate_ids: Candidates,
        candidate_features: Mapping[str, Any] | None = None,
        *,
        logits: bool = False,
    ) -> Floats:
        """Return the click probability (or logit) of every candidate, float32 [N].

        request: `user_id` and the request-side fields by name. candidate_ids: raw ids, as in the log.
        candidate_features: per candidate-side field, one value per candidate. Raises: BadRequest.
        """
        if self._direct is not None and candidate_features is None:
            found = self._direct.score(request, candidate_ids, logits=logits)
            if found is not None:
                scores, misses = found
                self._count(misses)
                return scores
        return self._score_raw([(request, candidate_ids, candidate_features)], logits=logits)[0]

    def score_many(
        self, requests: Sequence[tuple[Mapping[str, Any], Candidates]], *, logits: bool = False
    ) -> list[Floats]:
        """Return the scores of several requests, each as `score` would give them; a third entry holds its features."""
        return self._score_raw([(*parts, None)[:3] for parts in requests], logits=logits)

    def rank(
        self,
        request: Mapping[str, Any],
        candidate_ids: Candidates,
        k: int,
        candidate_features: Mapping[str, Any] | None = None,
    ) -> tuple[list[Any], Floats]:
        """Return the k best candidates, best first, with their probabilities; ties keep the order given.

        Raises: BadRequest.
        """
        k = whole("k", k)
        scores = self.score(request, candidate_ids, candidate_features, logits=True)
        best = np.argsort(-scores, kind="stable")[: max(k, 0)]
        return [candidate_ids[int(i)] for i in best], self.probabilities(scores[best])

    def _score_raw(
        self, raw: Sequence[tuple[Mapping[str, Any], Candidates, Mapping[str, Any] | None]], *, logits: bool
    ) -> list[Floats]:
        encoder = self._encoder
        requests = [encoder.request(request) for request, _, _ in raw]
        items = [encoder.items(candidates) for _, candidates, _ in raw]
        features = [encoder.features(given, len(keys)) for (_, _, given), keys in zip(raw, items, strict=True)]
        return self._score(requests, items, features, logits=logits)

    def score_encoded(self, request: Request, items: Keys, features: Features) -> Floats:
        """Return logits [N] for one request given as keys and standardized numbers."""
        return self._score([request], [items], [features], logits=True)[0]

    def _score(
        self, requests: list[Request], items: list[Keys], features: list[Features], *, logits: bool
    ) -> list[Floats]:
        scores, misses = self._scorer.score(requests, items, features, logits=logits)
        self._count(misses)
        return scores

    def _count(self, misses: Mapping[str, int]) -> None:
        for field, missed in misses.items():
            self.fallback_counts[field] += missed


def decode_golden(student: CompiledStudent, golden: Golden) -> tuple[Request, Keys, Features]:
    """Return a golden query's request, candidates and candidate features in encoded form."""
    return Encoder(student.schema, None).golden(golden)
