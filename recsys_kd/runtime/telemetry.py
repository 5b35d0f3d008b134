"""What a service counts, in plain numbers: a host turns them into its own metrics when it is asked for them."""

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray

SECONDS = tuple(m * 10.0**e for e in range(-5, 1) for m in (1, 2, 5))
"""Bounds of latencies: 10 us to 5 s."""
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Bounds of probabilities and of differences between them; click models live below 0.1."""
_SAMPLE = 64
"""Scores of a request that enter the distribution, evenly over its candidates: all would cost more than scoring."""


class Histogram:
    """Counts of values up to each bound, and beyond the last; not locked.

    What is not finite is left out: one such value would make the sum NaN for as long as the process lives.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.sum = tuple(bounds), 0.0
        self.counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._edges = np.array(bounds, dtype=np.float32)

    def add(self, value: float) -> None:
        """Count one value."""
        if not isfinite(value):
            return
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_many(self, values: NDArray[np.float32]) -> None:
        """Count many values at once."""
        total = float(values.sum())
        if not isfinite(total):
            values = values[np.isfinite(values)]
            total = float(values.sum())
        self.counts += np.bincount(np.searchsorted(self._edges, values), minlength=len(self.counts))
        self.sum += total

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper bound, values up to it), the last bound being `+Inf`."""
        totals = np.cumsum(self.counts).tolist()
        return [(b, float(n)) for b, n in zip((*map(repr, self.bounds), "+Inf"), totals, strict=True)]


@dataclass
class VersionStats:
    """What one version answered."""

    requests: int = 0
    candidates: int = 0
    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    scores: Histogram = field(default_factory=lambda: Histogram(SHARES))


class Stats:
    """What a service answered, by version; safe to share between threads. Versions out of memory are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.versions: dict[int, VersionStats] = {}
        self.bad_requests = 0
        self.canary_failed = 0
        """Requests that the challenger could not take, answered by the champion."""

    def answered(self, version: int, probabilities: NDArray[np.float32], seconds: float) -> None:
        """Count an answer."""
        n = len(probabilities)
        some = probabilities[:: max(1, n // _SAMPLE)]
        with self._lock:
            found = self.versions.setdefault(version, VersionStats())
            found.requests += 1
            found.candidates += n
            found.seconds.add(seconds)
            found.scores.add_many(some)

    def refused(self) -> None:
        """Count a request that could not be answered."""
        with self._lock:
            self.bad_requests += 1

    def fell_back(self) -> None:
        """Count a canary request that the champion answered."""
        with self._lock:
            self.canary_failed += 1

    def keep(self, versions: set[int]) -> None:
        """Forget all but some versions."""
        with self._lock:
            self.versions = {n: s for n, s in self.versions.items() if n in versions}
