"""Wanted nights against published ones: the only thing that decides what runs. It trusts neither queue nor beat.

Wanted: every scheduled model's nights up to yesterday (UTC), and what the desk records. Published: what the registry
says. Run as often as one likes, by whoever: it changes nothing that is in order.
"""

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial

from jobs import cleanup, machine, owners
from jobs.board import Board
from jobs.config import JobsConfig
from jobs.desk import CANCELLED, DEAD, Desk, Wanted
from jobs.machine import Night
from jobs.places import recipe_of, registry_of
from recsys_kd.errors import InputError, RecsysKdError
from recsys_kd.registry.protocol import Publication, State
from recsys_kd.registry.store import keep_copy, read_copy, rebuild
from recsys_kd.settings import load_recipe

log = logging.getLogger("recsys_kd.jobs")
Send = Callable[[Night], None]


def yesterday() -> dt.date:
    """Return the last day that is over, UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def scheduled(config: JobsConfig, until: dt.date) -> Iterator[Wanted]:
    """Yield the nights that the schedule wants; a recipe that can't be read is logged and holds up nobody else."""
    for model in config.models:
        try:
            name = load_recipe(model.recipe).name
        except RecsysKdError as error:
            log.error("schedule: %s", error)
            continue
        for day in range((until - model.first).days + 1):
            yield Wanted(name, (model.first + dt.timedelta(days=day)).isoformat(), str(model.recipe))


def reconcile(config: JobsConfig, send: Send) -> list[str]:
    """Bring the board in line with desk and registry, then start every model's next night; return the runs started."""
    board, desk = Board(config.state), Desk(config.desk)
    wanted: dict[str, list[Wanted]] = {}
    for want in (*scheduled(config, yesterday()), *desk.wanted()):
        wanted.setdefault(want.model, []).append(want)
    known = {night.run: night for night in board.all()}
    started = []
    for model, nights in sorted(wanted.items()):
        try:
            _align(config, board, desk, nights, known)
            started += start_next(config, model, send)
        except RecsysKdError as error:  # one model's trouble does not hold up the others
            log.error("reconcile %s: %s", model, error)
    return started


def _align(config: JobsConfig, board: Board, desk: Desk, wanted: list[Wanted], known: dict[str, Night]) -> None:
    try:
        records = published(config, wanted[0]).nights
    except InputError:  # the recipe can't be used: its nights' first stage says so, and they are dead letters
        for want in wanted:
            if machine.run_id(want.model, want.night) not in known:
                remember(board, desk, want)
        return
    forgotten = set(sorted(records)[: -config.limits.keep_versions])
    for want in wanted:
        night = known.get(machine.run_id(want.model, want.night))
        if night is None and want.night in forgotten:
            continue  # over for so long that the board forgot it: see `cleanup.tidy`
        _correct(config, board, desk, night or remember(board, desk, want), records.get(want.night))


def _correct(config: JobsConfig, board: Board, desk: Desk, night: Night, record: Publication | None) -> None:
    """Bring one night in line with what the registry says of it, and with whether its worker lives."""
    if record is not None and night.phase == "published":
        if (desk.night_folder(night.model, night.night) / "work").exists():
            cleanup.tidy(config, night)  # its last stage was lost
    elif record is not None:
        outcome = record.outcome
        board.change(night.run, lambda n, now: machine.published(n, now, outcome))
    elif night.phase == "published":
        board.change(night.run, lambda n, now: n.moved(now, phase="waiting", reason="the registry lost it"))
    elif night.phase == "running" and owners.is_gone(night.owner):
        board.change(night.run, lambda n, now: _release(n, now, night.owner))


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


def published(config: JobsConfig, want: Wanted) -> State:
    """Return what the registry knows of a model, restoring it from the store where the registry was lost.

    Raises: BadRecipe, RegistryUnreachable, OutsideError where the store is away.
    """
    recipe = recipe_of(config, want.model, want.night, want.recipe)
    registry = registry_of(config, recipe, want.model)
    state = registry.state(want.model)
    if state.versions:
        keep_copy(registry, state, recipe.store, want.model)
    elif (copy := read_copy(recipe.store, want.model)) is not None and copy.versions:
        found = rebuild(registry, recipe.store, want.model, "reconcile")
        log.error("the registry had lost %s: %d versions restored from the store", want.model, found.versions)
        state = registry.state(want.model)
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
        time.sleep(config.limits.reconcile)
