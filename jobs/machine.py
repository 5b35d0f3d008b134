"""The state machine of a night, as pure functions: who may move it, from where to where.

waiting -> queued -> running -> (queued for its next stage) -> published
                        |-> waiting (failed; again later) -> ... -> dead (out of attempts or patience, or bad input)
cancelled from anywhere before published; retry takes dead and cancelled back to waiting, and frees what waits.

A worker owns a night by a lease that it renews. Attempts are counted when a worker takes a night, before it does
anything: an attempt that takes the worker with it is counted too. What is away (the log, the store, the registry) is no
fault of the night: such an attempt is not counted, but the time is that it took and that the night then waits.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from recsys_kd.errors import InputError, OutsideError

Phase = Literal["waiting", "queued", "running", "published", "dead", "cancelled"]
STAGES = ("prepare", "train", "publish", "tidy")
OVER: tuple[Phase, ...] = ("published", "dead", "cancelled")
_LONGEST_BACKOFF = 120
"""Times the first."""
_PATIENT_BACKOFF, _SHORTEST_WAIT = 20, 0.1
"""Of what is away: times the first, since it may be back at any time; and seconds."""


class NotYours(OutsideError):
    """The night is over, or somebody else has it: whoever asks should leave it alone."""


class NotPossible(InputError):
    """A person asked for a step that the night's phase does not allow."""


@dataclass(frozen=True)
class Night:
    """One model's night as Redis holds it; times in seconds since 1970, by Redis's clock."""

    model: str
    night: str
    recipe: str
    created: float
    updated: float
    phase: Phase = "waiting"
    stage: str = STAGES[0]
    attempts: int = 0
    owner: str | None = None
    token: int = 0
    """Of the latest claim; the registry publishes for no other."""
    lease_until: float = 0.0
    not_before: float = 0.0
    started: float | None = None
    finished: float | None = None
    reason: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    """Per finished stage."""
    outcome: str = ""
    waited: float = 0.0
    """Seconds spent on what was away, of `limits.patience`."""
    held_since: float | None = None
    """Up to when `waited` counts, while something keeps the reconciler from the night's model."""

    @property
    def run(self) -> str:
        """What tasks are keyed by."""
        return run_id(self.model, self.night)

    def moved(self, now: float, **changes: Any) -> "Night":
        """Return a copy with changes, stamped."""
        return replace(self, updated=now, **changes)


def run_id(model: str, night: str) -> str:
    """Return `model@night`."""
    return f"{model}@{night}"


def is_active(night: Night, now: float, requeue: float) -> bool:
    """Return whether somebody is at it, or soon will be."""
    if night.phase == "running":
        return night.lease_until > now
    return night.phase == "queued" and night.updated + requeue > now


def is_ready(night: Night, now: float, requeue: float) -> bool:
    """Return whether it should be sent to the workers now."""
    if night.phase in OVER or is_active(night, now, requeue):
        return False
    return night.not_before <= now


def queue(night: Night, now: float, requeue: float) -> Night:
    """Send it (again). Raises: NotYours.

    One that waits in a queue keeps its stage, so that the message that waits there, if it is not lost, stays good.
    """
    if not is_ready(night, now, requeue):
        raise NotYours(f"{night.run} is {night.phase}")
    if night.phase == "queued":
        return night.moved(now, held_since=None)
    lost = night.phase == "running"
    reason = f"its worker {night.owner} went silent in {night.stage}" if lost else night.reason
    return night.moved(now, phase="queued", stage=STAGES[0], owner=None, reason=reason, held_since=None)


def claim(night: Night, now: float, owner: str, stage: str, lease: float, most: int, gone: bool) -> Night:
    """Take a stage of a night; `gone` tells that its present owner is known to be dead. Raises: NotYours.

    Out of attempts it becomes dead instead: look at the phase.
    """
    taken_over = night.phase == "running"
    if STAGES.index(stage) > STAGES.index(night.stage):
        raise NotYours(f"{night.run} was started over: its {stage} comes later")
    if night.phase not in ("queued", "running") or (taken_over and night.lease_until > now and not gone):
        raise NotYours(f"{night.run} is {night.phase}{f' at {night.owner}' if taken_over else ''}; nothing to do")
    night = _freed(night)
    counts = taken_over or stage == STAGES[0]
    attempts = night.attempts + counts
    reason = f"its worker {night.owner} was lost in {night.stage}" if taken_over else night.reason
    if attempts > most:
        why = f"{most} attempts, the last one: {reason or 'unknown'}"
        return night.moved(now, phase="dead", owner=None, reason=why, finished=now)
    return night.moved(
        now,
        phase="running",
        stage=stage,
        attempts=attempts,
        owner=owner,
        lease_until=now + lease,
        started=night.started or now,
        reason=reason,
    )


def is_past(night: Night, stage: str) -> bool:
    """Return whether a stage is done and the next one waits: its message came twice, or its successor's was lost."""
    return night.phase == "queued" and STAGES.index(stage) < STAGES.index(night.stage)


def held(night: Night, owner: str) -> Night:
    """Return the night if `owner` still has it: it runs, so it waits for no reconciler. Raises: NotYours."""
    if night.phase != "running" or night.owner != owner:
        raise NotYours(f"{night.run} is {night.phase}, owner {night.owner}: {owner} lost it")
    return _freed(night)


def renew(night: Night, now: float, owner: str, lease: float) -> Night:
    """Stay its owner. Raises: NotYours."""
    return held(night, owner).moved(now, lease_until=now + lease)


def finish_stage(night: Night, now: float, owner: str, seconds: float) -> Night:
    """Hand it to the next stage. Raises: NotYours."""
    night = held(night, owner)
    following = STAGES[STAGES.index(night.stage) + 1]
    times = night.seconds | {night.stage: round(seconds, 3)}
    return night.moved(now, phase="queued", stage=following, owner=None, seconds=times)


def published(night: Night, now: float, outcome: str, why: str = "") -> Night:
    """The registry has recorded it: that is so whoever owns it; `why` it was held back, where it was."""
    if night.phase == "published":
        return night
    return night.moved(now, phase="published", owner=None, outcome=outcome, finished=now, reason=why)


def failed(night: Night, now: float, owner: str, reason: str, again: bool, most: int, backoff: float) -> Night:
    """Try again later, or never. Raises: NotYours."""
    night = held(night, owner)
    if not again or night.attempts >= most:
        why = reason if not again else f"{most} attempts, the last one: {reason}"
        return night.moved(now, phase="dead", owner=None, reason=why, finished=now)
    wait = backoff * min(2 ** (night.attempts - 1), _LONGEST_BACKOFF)
    return night.moved(now, phase="waiting", owner=None, reason=reason, not_before=now + wait)


def postponed(
    night: Night, now: float, owner: str, reason: str, spent: float, patience: float, backoff: float
) -> Night:
    """Wait for what is away, as long again as so far, until the patience is used up. Raises: NotYours.

    `spent`: what the attempt took, in seconds.
    """
    night = held(night, owner)
    waited = night.waited + spent
    if waited >= patience:
        return _out_of_patience(night, now, reason, waited, patience)
    first = max(backoff, _SHORTEST_WAIT)
    wait = min(max(waited, first), first * _PATIENT_BACKOFF, max(patience - waited, _SHORTEST_WAIT))
    why = f"{reason}; tried again in {span(wait)}, has waited {span(waited)} of at most {span(patience)}"
    attempts = night.attempts - 1
    return night.moved(
        now, phase="waiting", owner=None, reason=why, not_before=now + wait, waited=waited + wait, attempts=attempts
    )


def _out_of_patience(night: Night, now: float, reason: str, waited: float, patience: float) -> Night:
    why = f"{reason}; waited {span(waited)} for it, limits.patience is {span(patience)}"
    return night.moved(now, phase="dead", owner=None, reason=why, finished=now, waited=waited)


def held_up(night: Night, now: float, reason: str, requeue: float, patience: float) -> Night:
    """Count the time for which a night that could begin waits for what keeps the reconciler from its model."""
    if not is_ready(night, now, requeue):
        return night
    waited = night.waited + now - (now if night.held_since is None else night.held_since)
    if waited >= patience:
        return _out_of_patience(night, now, reason, waited, patience)
    why = f"{reason}; tried again in every round of the reconciler, has waited {span(waited)} of at most "
    return night.moved(now, reason=why + span(patience), waited=waited, held_since=now)


def let_go(night: Night, now: float) -> Night:
    """The reconciler reaches the night's model again."""
    if night.held_since is None or night.phase in OVER:
        return night
    return _freed(night).moved(now)


def _freed(night: Night) -> Night:
    """Return a night that waits no longer for the reconciler, which a `reason` and `held_since` would go on to say."""
    return night if night.held_since is None else replace(night, reason="", held_since=None)


def span(seconds: float) -> str:
    """Return seconds as a person says them."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def cancel(night: Night, now: float, who: str) -> Night:
    """Stop it for good. Raises: NotPossible."""
    if night.phase == "published":
        raise NotPossible(f"{night.run} is published and can't be cancelled; see `recsys-kd registry rollback`")
    return night.moved(now, phase="cancelled", owner=None, reason=f"cancelled by {who}", finished=now)


def retry(night: Night, now: float, who: str) -> Night:
    """Start it again with a fresh count of attempts. Raises: NotPossible."""
    if night.phase not in ("dead", "cancelled", "waiting"):
        raise NotPossible(f"{night.run} is {night.phase}; only a dead, cancelled or waiting night can be retried")
    reason = f"retried by {who} after: {night.reason}"
    return night.moved(
        now, phase="waiting", attempts=0, not_before=0.0, finished=None, reason=reason, waited=0.0, held_since=None
    )
