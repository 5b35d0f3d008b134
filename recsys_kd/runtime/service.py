"""One model as a host serves it: which version answers, what is counted, and what a challenger is shown.

Every request is answered by exactly one version. `canary` sends a share of the users to the challenger, always the same
ones, by a hash of the user id; where the challenger can't take a request, the champion answers and it is counted.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.runtime.encode import BadRequest
from recsys_kd.runtime.ranker import Candidates
from recsys_kd.runtime.shadow import Shadow, Shown
from recsys_kd.runtime.telemetry import Stats
from recsys_kd.runtime.versions import Live
from recsys_kd.runtime.watcher import Serving, Watcher
from recsys_kd.schema import USER


class VersionNotLoaded(InputError):
    """A request asks for a version that is not in memory."""


@dataclass(frozen=True)
class Answer:
    """Scores float32 [N], and the version that gave all of them."""

    scores: NDArray[np.float32]
    version: int
    digest: str
    probabilities: NDArray[np.float32] | None = None
    """What logits stand for, where these were asked for."""


def position(model: str, user: Any) -> float:
    """Return where a user stands in [0, 1): the same on every host and at every time; another for another model."""
    digest = hashlib.blake2b(f"{model}\0{user}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


class Service:
    """Answers requests of one model; safe to share between threads. canary: share of users, 0 to 1."""

    def __init__(self, watcher: Watcher, canary: float = 0.0, shadow: Shadow | None = None) -> None:
        self.watcher, self.canary, self.shadow = watcher, canary, shadow
        self.stats = Stats()

    def start(self) -> Live:
        """Load a version and begin to watch. Raises: NoModel."""
        live = self.watcher.start()
        if self.shadow is not None:
            self.shadow.start()
        return live

    def stop(self) -> None:
        """End the threads; what is in memory can still answer."""
        self.watcher.stop()
        if self.shadow is not None:
            self.shadow.stop()

    def score(
        self,
        request: Mapping[str, Any],
        candidates: Candidates,
        features: Mapping[str, Any] | None = None,
        *,
        logits: bool = False,
        version: int | None = None,
    ) -> Answer:
        """Score a request, see `Ranker.score`; `version` asks for one that is in memory.

        Raises: BadRequest, VersionNotLoaded, NoModel.
        """
        serving = self.watcher.serving
        live = self._route(serving, request, version)
        try:
            raw, seconds = _timed(live, request, candidates, features)
        except BadRequest:
            if version is not None or live is serving.champion:
                self.stats.refused()
                raise
            self.stats.fell_back()
            live = serving.champion
            raw, seconds = _timed(live, request, candidates, features)
        scores = live.ranker.probabilities(raw)
        self.stats.answered(live.number, scores, seconds)
        challenger = _rival(serving)
        if self.shadow is not None and challenger is not None and live is serving.champion:
            self.shadow.offer(Shown(live, challenger, request, candidates, features, scores, seconds))
        if logits:
            return Answer(raw, live.number, live.digest, scores)
        return Answer(scores, live.number, live.digest)

    def _route(self, serving: Serving, request: Mapping[str, Any], version: int | None) -> Live:
        if version is not None:
            for live in serving.resident():
                if live.number == version:
                    return live
            loaded = ", ".join(str(live.number) for live in serving.resident())
            text = f"model '{self.watcher.model}': version {version} is not loaded; loaded are {loaded}"
            raise VersionNotLoaded(f"{text}, and without a version the champion answers")
        challenger = _rival(serving) if self.canary else None
        user = request.get(USER) if challenger is not None and isinstance(request, Mapping) else None
        # What can't be a user id is the champion's to refuse.
        if challenger is None or not _is_id(user) or position(self.watcher.model, user) >= self.canary:
            return serving.champion
        return challenger


def _is_id(user: Any) -> bool:
    return isinstance(user, str) or (isinstance(user, int | np.integer) and -(2**63) <= int(user) < 2**63)


def _timed(
    live: Live, request: Mapping[str, Any], candidates: Candidates, features: Mapping[str, Any] | None
) -> tuple[NDArray[np.float32], float]:
    """Return logits and the seconds that they took."""
    began = time.perf_counter()
    logits = live.ranker.score(request, candidates, features, logits=True)
    return logits, time.perf_counter() - began


def _rival(serving: Serving) -> Live | None:
    """Return the challenger, unless it is champion already."""
    rival = serving.challenger
    return None if rival is None or rival.digest == serving.champion.digest else rival
