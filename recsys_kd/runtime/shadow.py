"""A challenger scores a share of the requests beside the champion: in a thread of its own, after the answer was given.

The answer never waits for it and never changes by it: a request is copied into a bounded queue, and where that is full
it is dropped and counted.
"""

import copy
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.runtime.ranker import Candidates
from recsys_kd.runtime.telemetry import SECONDS, SHARES, Histogram
from recsys_kd.runtime.versions import Live

log = logging.getLogger("recsys_kd.serving")
_FLUSH_ROWS, _FLUSH_SECONDS = 1000, 10.0
_TOP = 10


@dataclass(frozen=True)
class Comparison:
    """One request scored by both; differences are of probabilities, times in seconds.

    top_overlap: share of the champion's best 10 that are among the challenger's. error: why the challenger could not
    score it, differences being NaN then.
    """

    at: float
    model: str
    champion: int
    challenger: int
    candidates: int
    mean_difference: float
    max_difference: float
    top_overlap: float
    champion_seconds: float
    challenger_seconds: float
    error: str = ""


@dataclass(frozen=True)
class Shown:
    """A request as it was answered."""

    champion: Live
    challenger: Live
    request: Mapping[str, Any]
    candidates: Candidates
    features: Mapping[str, Any] | None
    probabilities: NDArray[np.float32]
    seconds: float


Keep = Callable[[Sequence[Comparison]], None]
"""Stores comparisons; called from the shadow's thread, now and then, with all that came since."""


class Shadow:
    """Compares champion and challenger on a `share` of requests; `keep` stores what it finds."""

    def __init__(self, share: float, keep: Keep | None = None, waiting: int = 256) -> None:
        self.share, self.keep = share, keep
        self.compared = self.dropped = self.failed = self.not_kept = 0
        self.differences, self.seconds = Histogram(SHARES), Histogram(SECONDS)
        self._queue: queue.Queue[Shown | None] = queue.Queue(waiting)
        self._rows: list[Comparison] = []
        self._flushed = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to compare."""
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Compare what waits, store it, and end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def offer(self, shown: Shown) -> None:
        """Compare a request later, if chance takes it; what is handed over may be changed afterwards."""
        if random.random() >= self.share:
            return
        if self._queue.full():
            self.dropped += 1
            return
        try:
            self._queue.put_nowait(_copied(shown))
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        while True:
            try:
                shown = self._queue.get(timeout=_FLUSH_SECONDS)
            except queue.Empty:
                self._flush()
                continue
            if shown is None:
                self._flush()
                return
            self._rows.append(self._compare(shown))
            del shown  # a version leaves memory with the last request that it was compared on
            if len(self._rows) >= _FLUSH_ROWS or time.monotonic() - self._flushed >= _FLUSH_SECONDS:
                self._flush()

    def _compare(self, shown: Shown) -> Comparison:
        began = time.perf_counter()
        try:
            # Apart: its lookups are no answer's, and would be counted as if they were.
            scores = shown.challenger.ranker.apart().score(shown.request, shown.candidates, shown.features)
        except Exception as error:  # noqa: BLE001 - whatever a challenger does, the champion goes on
            self.failed += 1
            return _row(
                shown, (np.nan, np.nan, np.nan), time.perf_counter() - began, f"{type(error).__name__}: {error}"
            )
        seconds = time.perf_counter() - began
        differences = np.abs(scores - shown.probabilities)
        self.compared += 1
        self.seconds.add(seconds)
        mean = float(differences.mean()) if len(scores) else 0.0
        self.differences.add(mean)
        found = mean, float(differences.max(initial=0.0)), overlap(shown.probabilities, scores)
        return _row(shown, found, seconds)

    def _flush(self) -> None:
        rows, self._rows, self._flushed = self._rows, [], time.monotonic()
        if self.keep is None or not rows:
            return
        try:
            self.keep(rows)
        except Exception as error:  # noqa: BLE001 - a full disk ends the log, not the service
            self.not_kept += len(rows)
            log.warning("shadow log: %d comparisons were not kept: %s", len(rows), error)


def overlap(ours: NDArray[np.float32], theirs: NDArray[np.float32], top: int = _TOP) -> float:
    """Return which share of the best `top` by one score is among the best by the other; 1 where there are none."""
    k = min(top, len(ours))
    best = [set(np.argsort(-scores, kind="stable")[:k].tolist()) for scores in (ours, theirs)]
    return len(best[0] & best[1]) / k if k else 1.0


def _copied(shown: Shown) -> Shown:
    return Shown(
        shown.champion,
        shown.challenger,
        {name: copy.copy(value) for name, value in shown.request.items()},
        copy.copy(shown.candidates),
        shown.features and {name: copy.copy(value) for name, value in shown.features.items()},
        shown.probabilities.copy(),
        shown.seconds,
    )


def _row(shown: Shown, found: tuple[float, float, float], seconds: float, error: str = "") -> Comparison:
    return Comparison(
        time.time(),
        shown.champion.model,
        shown.champion.number,
        shown.challenger.number,
        len(shown.candidates),
        *found,
        shown.seconds,
        seconds,
        error,
    )
