"""What `submit` and `backfill` do: refuse nights that can't be, record the others on the desk, then start the first.

The desk comes first: what is recorded there runs, whatever becomes of Redis meanwhile.
"""

import datetime as dt
from pathlib import Path

from jobs import reconcile
from jobs.board import Board, BoardUnreachable
from jobs.config import JobsConfig
from jobs.desk import Desk, LogAway, Wanted, files_by_day
from jobs.machine import Night, run_id
from jobs.places import place_of, recipe_of, registry_of
from recsys_kd.errors import InputError, OutsideError
from recsys_kd.registry.protocol import Publication
from recsys_kd.settings import Recipe, load_recipe


class CantBeWanted(InputError):
    """A night that can't be, or not by this recipe."""


class NotStarted(OutsideError):
    """Nights are recorded as wanted, and Redis is away."""


def want(config: JobsConfig, path: Path, days: list[dt.date], send: reconcile.Send) -> list[Night]:
    """Record nights as wanted, start what can be started; return them as they were before that.

    Raises: CantBeWanted, NotStarted, BadRecipe, DeskUnwritable.
    """
    recipe, path, desk = load_recipe(path), path.resolve(), Desk(config.desk)
    _check_days(recipe, days)
    known = _known(config, recipe.name)
    _check_place(config, recipe, path, known)
    nights = [Wanted(recipe.name, day.isoformat(), str(path)) for day in days]
    records = _recorded(config, recipe)
    new = [night for night in nights if night.night not in records]
    for night in new:
        _check_recipe(desk, night, known)
    for night in new:
        desk.want(night)
    try:
        return _start(config, desk, nights, records, send)
    except BoardUnreachable as error:
        raise NotStarted(f"{_told(new)} recorded in {desk.folder / 'wanted'} and will run: {error}") from None


def _check_days(recipe: Recipe, days: list[dt.date]) -> None:
    """Refuse days to come, days before the log, and several days of a log that does not tell them apart."""
    today, source = dt.datetime.now(dt.UTC).date(), recipe.data.path
    if max(days) > today:
        raise CantBeWanted(f"night {max(days)} is still to come, today is {today} (UTC); submit it when it is over")
    try:
        dated = files_by_day(recipe)
    except LogAway:
        return  # it is not mounted here, or has not arrived: the nights wait for it
    known, first = sorted(day for day in dated.values() if day is not None), min(days).isoformat()
    if not known and len(days) > 1:
        raise CantBeWanted(
            f"data.path: {source} has no folders that name a day, such as day=2026-01-05: each of {len(days)} nights "
            "would read all of it and train the same; write the log in such folders, or submit one night"
        )
    if len(known) == len(dated) and first < known[0]:
        raise CantBeWanted(f"night {first} lies before data.path: {source} begins on {known[0]}; start from there")


def _known(config: JobsConfig, model: str) -> list[Night]:
    """Return what the board knows of a model; nothing where Redis is away, which holds up no record on the desk."""
    try:
        return [night for night in Board(config.state).all() if night.model == model]
    except BoardUnreachable:
        return []


def _check_place(config: JobsConfig, recipe: Recipe, path: Path, known: list[Night]) -> None:
    """Refuse a second recipe of a model's name that publishes elsewhere: a model has one champion."""
    others = {n.recipe: n for n in known if Path(n.recipe).resolve() != path}
    for given, night in others.items():
        try:
            place = place_of(config, recipe_of(config, night.model, night.night, given))
        except InputError:
            continue  # it publishes nothing
        if night.phase != "cancelled" and place != place_of(config, recipe):
            raise CantBeWanted(
                f"{path}: name: '{recipe.name}' is the model of {given} too ({night.run} is {night.phase}), which has "
                "another store or registry; give one of them another name, or both the same places"
            )


def _check_recipe(desk: Desk, night: Wanted, known: list[Night]) -> None:
    """Refuse a night that is wanted already with another recipe: it would run with that one."""
    run = run_id(night.model, night.night)
    recorded = (desk.recipe_of(night.model, night.night), *(n.recipe for n in known if n.run == run))
    given = next((recipe for recipe in recorded if recipe is not None), None)
    if given is not None and Path(given).resolve() != Path(night.recipe):
        raise CantBeWanted(
            f"{run} is wanted already, with the recipe {given}; change that file, or give {night.recipe} another name"
        )


def _recorded(config: JobsConfig, recipe: Recipe) -> dict[str, Publication]:
    """Return the nights that the registry has recorded; none where it is away: workers ask it again."""
    try:
        return registry_of(config, recipe, recipe.name).state(recipe.name).nights
    except OutsideError:
        return {}


def _start(
    config: JobsConfig, desk: Desk, wanted: list[Wanted], records: dict[str, Publication], send: reconcile.Send
) -> list[Night]:
    board, nights = Board(config.state), []
    for want in wanted:
        night, record = reconcile.remember(board, desk, want), records.get(want.night)
        nights.append(night if record is None else reconcile.settle(board, desk, night, record))
    reconcile.start_next(config, wanted[0].model, send)
    return nights


def _told(nights: list[Wanted]) -> str:
    if len(nights) == 1:
        return f"{run_id(nights[0].model, nights[0].night)} is"
    return f"{len(nights)} nights are"
