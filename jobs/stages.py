"""A worker's hold on one stage of one night: claim it, do it, hand over.

Whatever goes wrong is written down as a sentence, and the night waits for its next attempt, or is a dead letter.
"""

import time
from contextlib import suppress

from jobs import machine, supervise
from jobs.board import Board, BoardUnreachable
from jobs.cleanup import bury
from jobs.config import JobsConfig
from jobs.desk import Desk
from jobs.machine import Night, NotYours
from jobs.owners import is_gone, me
from jobs.steps import STEPS, StageFailed, Work
from recsys_kd.errors import InputError, OutsideError, RecsysKdError

_HAND_OVER_SECONDS = 30.0


def perform(config: JobsConfig, run: str, stage: str) -> Night:
    """Claim a stage of a night, do it, hand over. Raises: NotYours where there is nothing to do; the stage's errors."""
    board, desk, owner = Board(config.state), Desk(config.desk), me()
    limits = config.limits
    before = board.get(run)
    if before is not None and machine.is_past(before, stage):
        return before
    lost = before.owner if before is not None and is_gone(before.owner) else None

    def claim(night: Night, now: float) -> Night:
        gone = lost is not None and night.owner == lost
        return machine.claim(night, now, owner, stage, limits.lease, limits.attempts, gone)

    night = board.change(run, claim)
    work = Work(config, board, desk, night, owner)
    if night.phase == "dead":
        bury(config, night)
        raise NotYours(f"{run} is dead: {night.reason}")
    try:
        work.claim = work.registry().claim(night.model, night.night)
        token = work.claim.token
        board.change(run, lambda n, now: machine.held(n, owner).moved(now, token=token))
        outcome = STEPS[stage](work)
    except NotYours:
        raise
    except Exception as error:
        _give_up(work, error)
        raise
    seconds = time.monotonic() - work.began
    after = _hand_over(work, seconds, outcome if stage == "publish" else None)
    with suppress(BoardUnreachable):  # raised, it would end the chain of a stage that is done
        board.count(**{f"{stage}_done": 1, f"{stage}_seconds": seconds})
    return after


def _hand_over(work: Work, seconds: float, outcome: str | None) -> Night:
    """Write down that a stage is done; worth some patience where Redis does not answer just now."""
    deadline = time.monotonic() + _HAND_OVER_SECONDS
    why = work.desk.why(work.night.model, work.night.night, outcome or "")
    while True:
        try:
            if outcome is not None:
                return work.board.change(
                    work.night.run,
                    lambda n, now: machine.published(
                        n.moved(now, seconds=n.seconds | {"publish": round(seconds, 3)}), now, outcome, why
                    ),
                )
            return work.board.change(
                work.night.run, lambda n, now: machine.finish_stage(n, now, work.owner, seconds)
            )  # fmt: skip
        except BoardUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)  # Redis tells nobody when it is back


def _give_up(work: Work, error: Exception) -> None:
    """Write down why an attempt failed: bad input is not tried again, what is away is waited for."""
    again, away = not isinstance(error, InputError), isinstance(error, OutsideError)
    away &= not isinstance(error, (StageFailed, supervise.Stopped))  # these are the night's own
    reason = str(error) if isinstance(error, RecsysKdError) else f"{type(error).__name__}: {error}"
    limits, spent = work.config.limits, time.monotonic() - work.began

    def step(night: Night, now: float) -> Night:
        if away:
            return machine.postponed(night, now, work.owner, reason, spent, limits.patience, limits.backoff)
        return machine.failed(night, now, work.owner, reason, again, limits.attempts, limits.backoff)

    night = work.board.change(work.night.run, step)
    with suppress(BoardUnreachable):  # the letter first: it outlives Redis, and these lines do not
        if night.phase == "dead":
            bury(work.config, night)
        work.board.say(work.night.run, stage=work.night.stage, line=reason)
        work.board.count(**{f"{work.night.stage}_failed": 1})
