"""What a registry allows, as pure functions of a model's state: each returns the change to make, or raises.

Both stores run these inside their transactions, so they agree by construction; neither holds a rule of its own.
"""

import datetime as dt
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.evaluate.verdict import MOST_DAYS, Verdict
from recsys_kd.registry import history
from recsys_kd.registry.protocol import (
    ArtifactCollected,
    Claim,
    Event,
    Outcome,
    Pointer,
    PromotionRefused,
    Publication,
    RegistryNotEmpty,
    StaleEpoch,
    StalePublisher,
    State,
    Step,
    UnknownModel,
    Version,
    VersionInUse,
)
from recsys_kd.registry.seal import seal_fault


@dataclass(frozen=True)
class Change:
    """What to write, all of it or nothing; versions are only ever added."""

    event: Event | None = None
    versions: tuple[Version, ...] = ()
    aliases: Mapping[str, Pointer] = field(default_factory=dict)
    nights: tuple[Publication, ...] = ()
    tokens: Mapping[str, int] = field(default_factory=dict)
    collected: Mapping[int, bool] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


NOTHING = Change()


def now() -> str:
    """Return the time in UTC, ISO 8601 with milliseconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def existing(state: State, model: str, number: int) -> Version:
    """Return a version. Raises: UnknownModel."""
    if number not in state.versions:
        raise UnknownModel(f"no version {number} of model '{model}'; see `recsys-kd registry list`")
    return state.versions[number]


def usable(state: State, model: str, number: int) -> Version:
    """Return a version whose files are still there. Raises: UnknownModel, ArtifactCollected."""
    version = existing(state, model, number)
    if number in state.collected:
        raise ArtifactCollected(f"{model} version {number}: its files were collected; run its night again")
    return version


def folder(version: Version) -> Path:
    """Return where a version's artifact lies. Raises: ArtifactRefused where that folder is of another artifact.

    Whoever opens it finds the folder's name to be the digest of what is in it.
    """
    path = Path(version.path)
    if path.name != version.digest:
        detail = f"version {version.number} is artifact {version.digest[:12]}, this folder is another"
        raise ArtifactRefused(path, "digest", detail)
    return path


def register(
    state: State, model: str, digest: str, path: Path, lineage: dict[str, Any], who: str, claim: Claim | None = None
) -> tuple[Change, Version]:
    """Add a version, or return the one of this digest; one that was collected and made again is usable again.

    A night's version needs the night's claim: in a registry that was emptied meanwhile it would be the first, and what
    holds a version is not restored.
    """
    if claim is not None:
        _check_claim(state, model, claim)
    for known in state.versions.values():
        if known.digest == digest:
            if known.number not in state.collected:
                return NOTHING, known
            return Change(_event(state, known, "revive", who, ""), collected={known.number: False}), known
    version = Version(model, max(state.versions, default=0) + 1, digest, str(path), now(), lineage)
    return Change(_event(state, version, "register", who, ""), versions=(version,)), version


def promote(
    state: State, model: str, number: int, verdict: Verdict, expected_epoch: int, who: str, why: str
) -> tuple[Change, Pointer]:
    """Make a version champion."""
    version = usable(state, model, number)
    check_verdict(version, verdict)
    _check_epoch(state, model, expected_epoch)
    return _point(state, version, "promote", who, why)


def rollback(state: State, model: str, number: int, epoch: int, who: str, why: str) -> tuple[Change, Pointer]:
    """Make a version that was champion before `epoch`, and was verified, champion again."""
    _check_epoch(state, model, epoch)
    return _point(state, usable(state, model, number), history.BACK, who, why)


def name(state: State, model: str, alias: str, number: int, who: str, why: str) -> tuple[Change, Pointer]:
    """Let `challenger` name a version; `champion` and `previous` follow from promotions alone."""
    if alias != "challenger":
        raise PromotionRefused(f"{model}: `{alias}` moves by promote and rollback only; `challenger` can be named")
    version = usable(state, model, number)
    pointer = Pointer(alias, number, version.digest, state.epoch)
    return Change(_event(state, version, alias, who, why), aliases={alias: pointer}), pointer


def claim(state: State, night: str) -> tuple[Change, Claim]:
    """Return a new claim: larger than any before, and, by the clock, than those of a registry that was lost."""
    token = max(state.tokens.get(night, 0) + 1, time.time_ns() // 1_000_000)
    return Change(tokens={night: token}), Claim(night, token)


def _check_claim(state: State, model: str, claim: Claim) -> None:
    if state.tokens.get(claim.night) != claim.token:
        raise StalePublisher(
            f"{model}, night {claim.night}: this publisher's claim {claim.token} is void, the latest is "
            f"{state.tokens.get(claim.night)}; whoever holds that one publishes"
        )


def publish(
    state: State, model: str, number: int, verdict: Verdict, seen: int, claim: Claim, who: str
) -> tuple[Change, Publication]:
    """Record a night once; promote its version where it passed and no newer night is live."""
    if claim.night in state.nights:
        return NOTHING, state.nights[claim.night]
    _check_claim(state, model, claim)
    version = usable(state, model, number)
    outcome = _outcome(state, version, verdict, claim.night)
    if outcome != "live":
        record = Publication(claim.night, number, version.digest, state.epoch, outcome, now())
        event = _event(state, version, f"publish-{outcome}", who, f"night {claim.night}")
        return Change(event, nights=(record,)), record
    _check_epoch(state, model, seen)
    change, pointer = _point(state, version, "publish", who, f"night {claim.night}")
    record = Publication(claim.night, number, version.digest, pointer.epoch, outcome, now())
    return replace(change, nights=(record,)), record


def _outcome(state: State, version: Version, verdict: Verdict, night: str) -> Outcome:
    if not verdict.passed:
        _check_sound(version, verdict)
        return "held"
    check_verdict(version, verdict)
    newest = max((n for n, p in state.nights.items() if p.outcome == "live"), default="")
    return "late" if night < newest else "live"


def collect(
    state: State, model: str, number: int, serving: Mapping[str, str], events: Iterable[Event], who: str, why: str
) -> tuple[Change, None]:
    """Mark a version as collected, unless an alias or a live service names it or the next rollback goes to it."""
    version = existing(state, model, number)
    users = [a for a, p in state.aliases.items() if p.number == number]
    users += [s for s, digest in serving.items() if digest == version.digest]
    if history.before(state, events) == number:
        users.append("the next rollback")
    if users:
        raise VersionInUse(f"{model} version {number} is used by {', '.join(users)}; it stays")
    if number in state.collected:
        return NOTHING, None
    return Change(_event(state, version, "collect", who, why), collected={number: True}), None


def restore(state: State, model: str, wanted: State, who: str) -> tuple[Change, None]:
    """Take over a whole state where there is none."""
    if state.versions:
        raise RegistryNotEmpty(f"{model}: the registry holds {len(state.versions)} version(s) of it; nothing was done")
    last = wanted.versions[max(wanted.versions)]
    event = Event(now(), model, "restore", last.number, last.digest, wanted.epoch, who, "rebuilt from the store")
    tokens = {night: max(token, state.tokens.get(night, 0)) for night, token in wanted.tokens.items()}
    return Change(
        event,
        tuple(wanted.versions.values()),
        wanted.aliases,
        tuple(wanted.nights.values()),
        tokens,
        dict.fromkeys(wanted.collected, True),
        tuple(history.steps(wanted).values()),
    ), None


def check_verdict(version: Version, verdict: Verdict) -> None:
    """Raise PromotionRefused unless the verdict passed, names this digest and a log, is signed if keys ask, and holds.

    A verdict whose word is not that of its own checks, or that rests on none, was not written by a gate.
    """
    what = f"{version.model} version {version.number}"
    gating = [c for c in verdict.checks if c.gates]
    _check_sound(version, verdict)
    if not verdict.measured_on:
        raise PromotionRefused(f"{what}: the verdict names no log that it was measured on; let the gate judge it again")
    if not verdict.passed:
        failed = "; ".join(c.sentence for c in gating if not c.passed)
        raise PromotionRefused(f"{what}: the gate held it back: {failed}")
    if not gating:
        raise PromotionRefused(f"{what}: the verdict rests on no check that decides; let the gate judge it again")
    _check_expiry(what, verdict.expires)


def _check_expiry(what: str, expires: str) -> None:
    """Raise PromotionRefused for an expiry that is no time with a zone, is over, or is later than any gate gives."""
    try:
        end = dt.datetime.fromisoformat(expires)
    except ValueError:
        end = None
    if end is None or end.tzinfo is None:
        raise PromotionRefused(
            f"{what}: the verdict's expiry '{expires}' is no time with a zone, such as 2026-01-31T12:00:00+00:00; let "
            "the gate judge it again"
        )
    left = end - dt.datetime.now(dt.UTC)
    if left <= dt.timedelta(0):
        raise PromotionRefused(f"{what}: the verdict expired on {expires}; evaluate the artifact again")
    if left > dt.timedelta(days=MOST_DAYS, hours=1):  # an hour for clocks that differ
        raise PromotionRefused(
            f"{what}: the verdict's expiry {expires} is more than {MOST_DAYS} days away, and no gate gives more; "
            "let the gate judge it again"
        )


def _check_sound(version: Version, verdict: Verdict) -> None:
    """Raise PromotionRefused for a verdict that contradicts itself, is about another artifact, or is not signed."""
    what = f"{version.model} version {version.number}"
    if verdict.passed != all(c.passed for c in verdict.checks if c.gates):
        raise PromotionRefused(f"{what}: the verdict's checks do not say what it says; let the gate judge it again")
    _check_subject(version, verdict)
    if fault := seal_fault(verdict):
        raise PromotionRefused(f"{what}: the verdict can't be trusted: {fault}; let the gate judge it with that key")


def _check_subject(version: Version, verdict: Verdict) -> None:
    if verdict.artifact_digest != version.digest:
        raise PromotionRefused(
            f"{version.model} version {version.number}: the verdict is about artifact "
            f"{verdict.artifact_digest[:12]}, this is {version.digest[:12]}; evaluate this artifact"
        )


def _check_epoch(state: State, model: str, expected: int) -> None:
    if state.epoch != expected:
        raise StaleEpoch(
            f"{model}: epoch is {state.epoch}, this promotion was decided at {expected}; evaluate against the "
            "champion that is live now"
        )


def _point(state: State, version: Version, action: str, who: str, why: str) -> tuple[Change, Pointer]:
    """Move `champion` to a version and `previous` to what was champion, unless that is the same version."""
    epoch, before = state.next_epoch, state.aliases.get("champion")
    pointer = Pointer("champion", version.number, version.digest, epoch)
    moves = {"champion": pointer}
    if before is not None and before.number != version.number:
        moves["previous"] = Pointer("previous", before.number, before.digest, epoch)
    event = Event(now(), version.model, action, version.number, version.digest, epoch, who, why)
    return Change(event, aliases=moves, steps=(Step(epoch, version.number, action == history.BACK),)), pointer


def _event(state: State, version: Version, action: str, who: str, why: str) -> Event:
    return Event(now(), version.model, action, version.number, version.digest, state.epoch, who, why)
