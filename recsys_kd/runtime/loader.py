"""Loads the versions that a registry names, each once, and remembers what was refused.

A refused artifact is looked at again later and later (5 minutes at most): copies between stores take time, and
verifying a large artifact at every poll would cost more than serving.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.runtime.versions import Live, ModelState, Named, load

_RETRY_MOST = 300.0
_REMEMBERED = 64
"""A refusal a night: a service that runs for years stays small."""


class Refused(Exception):
    """A version is not served, `again` because it was refused lately and was not looked at now."""

    def __init__(self, named: Named, error: Exception, *, again: bool) -> None:
        super().__init__(str(error))
        # Frames of a failed verification hold the files that it mapped: what is remembered must not hold them.
        error.__cause__ = error.__context__ = None
        self.named, self.error, self.again = named, error.with_traceback(None), again

    @property
    def reason(self) -> str:
        """The check that it failed."""
        return self.error.check if isinstance(self.error, ArtifactRefused) else "not-loaded"


@dataclass(frozen=True)
class _Before:
    error: Exception
    tries: int
    next: float


class Loader:
    """Loads versions of one model.

    store: where this host sees the artifact store, if the registry's paths are another host's.
    """

    def __init__(self, model: str, store: Path | None, seconds: float) -> None:
        self.model, self.store, self.seconds = model, store, seconds
        self._refused: dict[str, _Before] = {}

    def get(self, state: ModelState, named: Named, resident: Iterable[Live]) -> Live:
        """Return a version, from memory where it is there. Raises: Refused."""
        for live in resident:
            if live.digest == named.digest:
                return live
        before = self._refused.get(named.digest)
        if before is not None and time.monotonic() < before.next:
            raise Refused(named, before.error, again=True)
        try:
            live = load(self.model, named.number, named.digest, self._where(state, named))
        except Exception as error:  # noqa: BLE001 - whatever an artifact does, what serves goes on
            refused = Refused(named, error, again=False)
        else:
            self._refused.pop(named.digest, None)
            return live
        self._remember(named, refused.error, before)
        raise refused

    def _where(self, state: ModelState, named: Named) -> Path:
        if self.store is not None:
            return self.store / self.model / named.digest
        version = state.versions.get(named.number)
        if version is None or version.digest != named.digest:
            text = f"the registry has no version {named.number} of that digest"
            raise ArtifactRefused(Path(named.digest), "digest", text)
        return Path(version.path)

    def _remember(self, named: Named, error: Exception, before: _Before | None) -> None:
        tries = before.tries + 1 if before else 1
        wait = min(self.seconds * 2.0**tries, _RETRY_MOST)
        kept = dict(list(self._refused.items())[1 - _REMEMBERED :])
        self._refused = kept | {named.digest: _Before(error, tries, time.monotonic() + wait)}
