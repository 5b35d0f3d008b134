"""Keeps one process on the registry's champion: polls, verifies, warms, swaps one reference.

Whoever scores reads `serving` once and keeps what it found: a request is answered by exactly one version, and a version
leaves memory with the last request that began with it. `previous` stays resident, so a rollback is one poll away.
Whatever is wrong with registry or artifact, the verified version stays, and the refusal is counted by its reason: the
name of the artifact's check, or another of `REASONS`.
"""

import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from recsys_kd.artifact.errors import CHECKS
from recsys_kd.errors import OutsideError, RecsysKdError
from recsys_kd.runtime.events import Refusal, Swap, Tell, log_event
from recsys_kd.runtime.lastgood import LastGood, PointerFile, PointerUnusable
from recsys_kd.runtime.loader import Loader, Refused
from recsys_kd.runtime.versions import Live, ModelState, Named, NoModel, Registry, load

POLL_SECONDS = 5.0
REASONS = (
    *(*CHECKS, "not-loaded", "registry-unreachable", "registry-unreadable", "no-champion", "stale-epoch"),
    *("pointer", "announce", "defect"),
)
"""All that a refusal may be counted by."""
_ANNOUNCE_SECONDS, _ANNOUNCE_EVERY = 180, 30.0
_NICE = 10
_LAST_EPOCH = 2**53
"""Epochs count promotions, and after a rebuild begin at the time in ms. One beyond is a damaged registry's: once
remembered, it would keep every true one from being followed."""


@dataclass(frozen=True)
class Serving:
    """What is in memory as of one moment."""

    champion: Live
    previous: Live | None = None
    challenger: Live | None = None

    def resident(self) -> tuple[Live, ...]:
        """Return every version in memory, champion first, each once."""
        found = {x.digest: x for x in (self.champion, self.previous, self.challenger) if x is not None}
        return tuple(found.values())


class Watcher:
    """Watches one model for one process.

    pointers: folder of the last-known-good pointer; None keeps none. store: see `Loader`. challenger: load it too.
    `poll` may be called from any thread: it is the hint that something changed.
    """

    def __init__(
        self,
        model: str,
        registry: Registry,
        pointers: Path | None,
        *,
        seconds: float = POLL_SECONDS,
        store: Path | None = None,
        challenger: bool = False,
        tell: Tell = log_event,
    ) -> None:
        self.model, self.registry, self.seconds = model, registry, seconds
        self.refusals: Counter[str] = Counter()
        self.swaps = 0
        self.epoch = 0
        """The registry's epoch as of what serves; an older one is not followed."""
        self.answered_at: float | None = None
        """When the registry last answered, by `time.time`; None before it ever did."""
        self.fault: Exception | None = None
        """What the last poll could not follow; None where it could."""
        self._serving: Serving | None = None
        self._file = None if pointers is None else PointerFile(pointers, model)
        self._loader = Loader(model, store, seconds)
        self._wants_challenger, self._tell = challenger, tell
        self._announced = ("", 0.0)
        self._service = f"{socket.gethostname()}:{os.getpid()}"
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def serving(self) -> Serving:
        """What is in memory now. Raises: NoModel before `start`."""
        if self._serving is None:
            raise NoModel(f"{self.model}: no version is loaded; start the watcher first")
        return self._serving

    def start(self) -> Live:
        """Load a version and begin to watch; return what serves. Raises: NoModel where there is nothing sound."""
        last = self._last_good()
        self.epoch = last.epoch if last else 0
        self.poll()
        if self._serving is None and last is not None and not self._serve_last(last):
            self.epoch = 0  # nothing better is known: an older registry's champion is better than no answer
            self.poll()
        if self._serving is None:
            raise NoModel(f"{self.model}: nothing to serve: {self.fault}", self.fault)
        self._thread = threading.Thread(target=self._watch, name=f"watch-{self.model}", daemon=True)
        self._thread.start()
        return self._serving.champion

    def stop(self) -> None:
        """End watching; versions in memory stay usable."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def poll(self) -> bool:
        """Look at the registry now; return whether another version serves since. Raises nothing."""
        with self._lock:
            began = time.perf_counter()
            try:
                state = self.registry.state(self.model)
                refused = self._unfollowable(state)
            except Exception as error:  # noqa: BLE001 - whatever a registry does, what serves goes on
                self._refuse(f"registry-{'unreachable' if isinstance(error, OutsideError) else 'unreadable'}", error)
                return False
            if refused is not None:
                self._refuse(*refused)
                return False
            try:
                self.answered_at = time.time()
                changed = self._take(state, began)
                self._announce()
            except Exception as error:  # noqa: BLE001 - a watcher that ends would never swap again
                self._refuse("defect", error)
                return False
            return changed

    def _unfollowable(self, state: ModelState) -> tuple[str, Exception] | None:
        """Return why a state can't be followed at all, or None."""
        if "champion" not in state.aliases:
            return "no-champion", NoModel(f"the registry names no champion of '{self.model}'; run a night that passes")
        if state.epoch > _LAST_EPOCH:
            text = f"the registry says epoch {state.epoch}, beyond any that is given: it is damaged"
            return "registry-unreadable", NoModel(f"{text}; move it away, then `recsys-kd registry rebuild`")
        if state.epoch < self.epoch:
            text = f"the registry is at epoch {state.epoch}, after {self.epoch}: it lost promotions, or is a stale copy"
            file = f"remove its pointer file {self._file.path} and " if self._file else ""
            return "stale-epoch", NoModel(f"{text}; if that is meant, {file}start again")
        return None

    def _take(self, state: ModelState, began: float) -> bool:
        """Load what the state names, and swap; return whether another version serves."""
        before = self._serving
        champion, refused = self._get(state, "champion")
        self.fault = refused
        live = champion or (before.champion if before else self._get(state, "previous")[0])
        if live is None:
            return False
        self.epoch = state.epoch if champion else self.epoch
        changed = before is None or live is not before.champion
        if changed:
            self._swap(before, live, "loaded" if champion else "previous", began)
        previous = self._get(state, "previous")[0]
        challenger = self._get(state, "challenger")[0] if self._wants_challenger else None
        self._serving = replace(self.serving, challenger=challenger, previous=previous or self.serving.previous)
        return changed

    def _get(self, state: ModelState, alias: str) -> tuple[Live | None, Exception | None]:
        """Return the version that an alias names, or why it is refused, which is counted."""
        named = state.aliases.get(alias)
        if named is None:
            return None, None
        try:
            return self._loader.get(state, named, self._serving.resident() if self._serving else ()), None
        except Refused as refused:
            if not refused.again:
                self._refuse(refused.reason, refused.error, named)
            return None, refused.error

    def _swap(self, before: Serving | None, live: Live, source: str, began: float) -> None:
        """Let a version serve; remember it on disk, and tell of it."""
        if before is not None and live in before.resident():
            source = "resident"
        old = before.champion if before else None
        self._serving = replace(before, champion=live, previous=old) if before else Serving(live)
        self.swaps += 1
        seconds = round(time.perf_counter() - began, 4)
        self._keep_last(live)
        other = old is not None and old.ranker.schema.fingerprint != live.ranker.schema.fingerprint
        number = old.number if old else None
        self._tell(Swap(self.model, live.number, live.digest, number, self.epoch, source, seconds, other))

    def _refuse(self, reason: str, error: Exception, about: Named | None = None) -> None:
        """Count; tell of it, but not again at every poll while the registry as a whole can't be followed."""
        self.refusals[reason] += 1
        detail = str(error) if isinstance(error, RecsysKdError) else f"{type(error).__name__}: {error}"
        told = about is None and str(error) == str(self.fault)
        if about is None:
            self.fault = error
        if not told:
            number, digest = (about.number, about.digest) if about else (None, None)
            self._tell(Refusal(self.model, reason, detail, number, digest))

    def _keep_last(self, live: Live) -> None:
        try:
            if self._file is not None:
                self._file.write(LastGood(self.model, live.number, live.digest, live.path, self.epoch))
        except PointerUnusable as error:
            self._refuse("pointer", error, live)

    def _last_good(self) -> LastGood | None:
        try:
            return None if self._file is None else self._file.read()
        except PointerUnusable as error:
            self._refuse("pointer", error)
            return None

    def _serve_last(self, last: LastGood) -> bool:
        """Serve the last known good version where it still verifies; return whether it does."""
        began = time.perf_counter()
        try:
            live = load(self.model, last.number, last.digest, Path(last.path))
        except Exception as error:  # noqa: BLE001 - see `Loader.get`
            refused = Refused(last, error, again=False)
            self._refuse(refused.reason, error, last)
            return False
        self._swap(None, live, "last-known-good", began)
        return True

    def _announce(self) -> None:
        """Tell the registry what is loaded, so that it is not collected."""
        digest, now = self._serving.champion.digest if self._serving else "", time.monotonic()
        if not digest or (self._announced[0] == digest and now - self._announced[1] < _ANNOUNCE_EVERY):
            return
        self._announced = digest, now
        try:
            self.registry.announce(self.model, self._service, digest, _ANNOUNCE_SECONDS)
        except Exception:  # noqa: BLE001 - a right that is missing keeps nobody from serving
            self.refusals["announce"] += 1

    def _watch(self) -> None:
        _give_way()
        while True:
            # Jittered downwards: processes spread, and what is published is live within `seconds` all the same.
            self._wake.wait(self.seconds * random.uniform(0.75, 1.0))
            self._wake.clear()
            if self._stopping:
                return
            self.poll()


def _give_way() -> None:
    """Let requests go before this thread, on Linux: elsewhere priorities are of whole processes.

    A version is verified and warmed beside them: of two processors busy with requests, p99 was 1.8 times as long in
    seconds with a swap as in those without, and 1.4 times with this.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # a host may forbid it
            os.setpriority(os.PRIO_PROCESS, thread, max(_NICE, os.getpriority(os.PRIO_PROCESS, thread)))
