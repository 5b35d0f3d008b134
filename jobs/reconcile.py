"""Wanted nights against published ones: the only thing that decides what runs. It trusts neither queue nor beat.

Wanted: every scheduled model's nights up to yesterday (UTC), and what the desk records. Published: what the registry
says. Run as often as one likes, by whoever: it changes nothing that is in order.
"""

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from jobs import cleanup, machine, owners
from jobs.board import Board
from jobs.config import JobsConfig
from jobs.desk import CANCELLED, DEAD, Desk, Wanted
from jobs.machine import Night
from jobs.places import Place, by_place, is_lost, registry_of
from recsys_kd.errors import OutsideError, RecsysKdError
from recsys_kd.registry.protocol import Publication, State
from recsys_kd.registry.store import keep_copy, read_copy, rebuild
from recsys_kd.settings import Recipe, load_recipe

log = logging.getLogger("recsys_kd.jobs")
Send = Callable[[Night], None]


class DeskAway(OutsideError):
    """A night's folder can't be looked into."""


class Defect(OutsideError):
    """What nobody has foreseen; it holds up one model, for its patience, like what is away."""


class Unreconciled(OutsideError):
    """Something keeps the reconciler from models."""

    def __init__(self, troubles: dict[str, RecsysKdError]) -> None:
        each = "; ".join(f"{model}: {error}" for model, error in sorted(troubles.items()))
        super().__init__(f"not reconciled, and nothing of it started: {each}")


@dataclass
class Round:
    """What one comparison came to."""

    started: list[str] = field(default_factory=list)
    """The runs sent."""
    troubles: dict[str, RecsysKdError] = field(default_factory=dict)
    """What kept it from a model: by the model's name, by the recipe's path where the name can't be read."""


def yesterday() -> dt.date:
    """Return the last day that is over, UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def scheduled(config: JobsConfig, until: dt.date, troubles: dict[str, RecsysKdError]) -> Iterator[Wanted]:
    """Yield the nights that the schedule wants; a recipe that can't be read is told and holds up nobody else."""
    for model in config.models:
        try:
            name = load_recipe(model.recipe).name
        except RecsysKdError as error:
            log.error("schedule: %s", error)
            troubles[str(model.recipe)] = error
            continue
        for day in range((until - model.first).days + 1):
            yield Wanted(name, (model.first + dt.timedelta(days=day)).isoformat(), str(model.recipe))


def reconcile(config: JobsConfig, send: Send) -> Round:
    """Bring the board in line with desk and registry, then start every model's next night."""
    board, desk, done = Board(config.state), Desk(config.desk), Round()
    wanted: dict[str, list[Wanted]] = {}
    for want in (*scheduled(config, yesterday(), done.troubles), *desk.wanted()):
        wanted.setdefault(want.model, []).append(want)
    known = {night.run: night for night in board.all()}
    for model, nights in sorted(wanted.items()):
        try:
            with _told_as_outside(desk):
                _align(config, board, desk, nights, known)
                done.started += start_next(config, model, send)
        except RecsysKdError as error:  # one model's trouble does not hold up the others
            log.error("reconcile %s: %s", model, error)
            done.troubles[model] = error
            _hold_up(config, board, desk, nights, known, error)
    return done


@contextmanager
def _told_as_outside(desk: Desk) -> Iterator[None]:
    """Raise what the system says of a desk or store as an error of ours, and a defect as one that is logged whole."""
    try:
        yield
    except RecsysKdError:
        raise
    except OSError as error:
        where, what = error.filename or f"desk {desk.folder}, or a store", error.strerror or str(error)
        raise DeskAway(f"{where}: {what}; make it readable and writable for this user") from None
    except Exception as error:
        log.exception("a defect")
        raise Defect(f"{type(error).__name__}: {error}; the log says where, please report it") from error


def _hold_up(
    config: JobsConfig, board: Board, desk: Desk, wanted: list[Wanted], known: dict[str, Night], error: RecsysKdError
) -> None:
    """Let a model's nights that could begin wait for what keeps the reconciler from it, until their patience is out."""
    limits = config.limits
    step = partial(machine.held_up, reason=str(error), requeue=limits.requeue, patience=limits.patience)
    try:
        with _told_as_outside(desk):
            for night in _open(config, board, desk, wanted, known):
                after = board.change(night.run, step)
                if after.phase == "dead" != night.phase:
                    cleanup.bury(config, after)
    except RecsysKdError as more:  # Redis or the desk are away as well: the next round counts
        log.error("reconcile %s: %s", wanted[0].model, more)


def _open(
    config: JobsConfig, board: Board, desk: Desk, wanted: list[Wanted], known: dict[str, Night]
) -> Iterator[Night]:
    """Yield a model's open nights while its registry is away; new ones are those later than all that was published.

    Where the store's copy can't be read either, only the desk's records tell of new ones: old ones are removed there.
    """
    before = [night for want in wanted if (night := known.get(machine.run_id(want.model, want.night))) is not None]
    yield from (night for night in before if night.phase not in machine.OVER)
    recorded = _recorded(config, desk, wanted, known)
    done = {night.night for night in before if night.phase == "published"} | (recorded or set())
    for want in wanted:
        if machine.run_id(want.model, want.night) in known or want.night <= max(done, default=""):
            continue
        if recorded is not None or desk.recipe_of(want.model, want.night) is not None:
            yield remember(board, desk, want)


def _recorded(config: JobsConfig, desk: Desk, wanted: list[Wanted], known: dict[str, Night]) -> set[str] | None:
    """Return the nights of a model that the stores' copies of the registry have; None where one can't be read."""
    places = _places(config, desk, wanted, known)
    try:
        copies = [read_copy(place.recipe.store, place.recipe.name) for place in places]
    except RecsysKdError:
        return None
    return {night for copy in copies if copy is not None for night in copy.nights} if places else None


def _places(config: JobsConfig, desk: Desk, wanted: list[Wanted], known: dict[str, Night]) -> list[Place]:
    """Return where a model's nights are published. Those that were cancelled count where there are no others only."""

    def is_cancelled(want: Wanted) -> bool:
        night = known.get(machine.run_id(want.model, want.night))
        return (night is None or night.phase == "cancelled") and desk.is_cancelled(want.model, want.night)

    places = by_place(config, (want for want in wanted if not is_cancelled(want)))
    return list((places or by_place(config, wanted)).values())


def _align(config: JobsConfig, board: Board, desk: Desk, wanted: list[Wanted], known: dict[str, Night]) -> None:
    places = _places(config, desk, wanted, known)
    records = _records(config, places, known)
    # Not so where a recipe can't be used: its night's first stage says so, and it is a dead letter.
    asked = {want.night for place in places for want in place.nights}
    forgotten = set(sorted(records)[: -config.limits.keep_versions])
    for want in wanted:
        night = known.get(machine.run_id(want.model, want.night))
        if night is None and want.night in forgotten:
            continue  # over for so long that the board forgot it: see `cleanup.tidy`
        if night is not None and night.held_since is not None:
            night = board.change(night.run, machine.let_go)
        night, record = night or remember(board, desk, want), records.get(want.night)
        if record is not None or want.night in asked:
            _correct(config, board, desk, night, record)


def _records(config: JobsConfig, places: list[Place], known: dict[str, Night]) -> dict[str, Publication]:
    """Return what the registries say of a model's nights, each place's own asked.

    Raises what keeps from a place whose nights nobody else knows: not all are given up, or in another's registry since
    the store was moved.
    """
    records: dict[str, Publication] = {}
    troubles: list[tuple[Place, RecsysKdError]] = []
    for place in places:
        try:
            records |= published(config, place.recipe).nights
        except RecsysKdError as error:
            troubles.append((place, error))
    for place, trouble in troubles:
        for want in place.nights:
            night = known.get(machine.run_id(want.model, want.night))
            if want.night not in records and (night is None or night.phase not in ("dead", "cancelled")):
                raise trouble
    return records


def _correct(config: JobsConfig, board: Board, desk: Desk, night: Night, record: Publication | None) -> None:
    """Bring one night in line with what the registry says of it, and with whether its worker lives."""
    if record is not None and night.phase == "published":
        if (desk.night_folder(night.model, night.night) / "work").exists():
            cleanup.tidy(config, night)  # its last stage was lost
    elif record is not None:
        settle(board, desk, night, record)
    elif night.phase == "published":
        board.change(night.run, lambda n, now: n.moved(now, phase="waiting", reason="the registry lost it"))
    elif night.phase == "running" and owners.is_gone(night.owner):
        board.change(night.run, lambda n, now: _release(n, now, night.owner))


def settle(board: Board, desk: Desk, night: Night, record: Publication) -> Night:
    """Put on the board what the registry has recorded of a night."""
    why = desk.why(night.model, night.night, record.outcome)
    return board.change(night.run, partial(machine.published, outcome=record.outcome, why=why))


def remember(board: Board, desk: Desk, want: Wanted) -> Night:
    """Put a night on the board; one that was cancelled or given up before Redis lost it stays so."""
    night, folder = board.want(want.model, want.night, want.recipe), desk.night_folder(want.model, want.night)
    if (folder / CANCELLED).exists():
        return board.change(
            night.run, partial(_is_over, phase="cancelled", why=f"cancelled earlier; see its {CANCELLED}")
        )
    if (folder / DEAD).exists():
        return board.change(night.run, partial(_is_over, phase="dead", why=f"given up earlier; see its {DEAD}"))
    return night


def _is_over(night: Night, now: float, phase: machine.Phase, why: str) -> Night:
    return night.moved(now, phase=phase, reason=why) if night.phase == "waiting" else night


def _release(night: Night, now: float, owner: str | None) -> Night:
    """End the lease of a worker of this machine that is known to be dead."""
    return night.moved(now, lease_until=now) if night.owner == owner else night


def published(config: JobsConfig, recipe: Recipe) -> State:
    """Return what the registry knows of a recipe's model, restoring it from the store where the registry was lost.

    Raises: RegistryUnreachable, OutsideError where the store is away.
    """
    model, registry = recipe.name, registry_of(config, recipe, recipe.name)
    state = registry.state(model)
    if state.versions:
        keep_copy(registry, state, recipe.store, model)
    elif is_lost(state, recipe.store, model):
        found = rebuild(registry, recipe.store, model, "reconcile")
        log.error("the registry had lost %s: %d versions restored from the store", model, found.versions)
        state = registry.state(model)
    return state


def start_next(config: JobsConfig, model: str, send: Send) -> list[str]:
    """Send a model's next night, if none is under way; return its run."""
    night = Board(config.state).queue_next(model, config.limits.requeue)
    if night is None:
        return []
    try:
        send(night)
    except Exception as error:  # noqa: BLE001 - Celery's and Redis's errors are many; the next round sends it again
        reason = f"not sent: {error}"
        log.error("%s: %s", night.run, reason)
        Board(config.state).change(night.run, lambda n, now: n.moved(now, phase="waiting", reason=reason))
        return []
    return [night.run]


def forever(config: JobsConfig, send: Send) -> None:
    """Reconcile again and again, whatever goes wrong in between."""
    while True:
        try:
            reconcile(config, send)
        except RecsysKdError as error:
            log.error("reconcile: %s", error)
        except Exception:
            log.exception("reconcile")
        time.sleep(config.limits.reconcile)
