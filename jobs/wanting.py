"""What `submit` and `backfill` do: refuse nights that can't be, record the others on the desk, then start the first.

The desk comes first: what is recorded there runs, whatever becomes of Redis meanwhile.
"""

import datetime as dt
from contextlib import suppress
from pathlib import Path

from jobs import reconcile
from jobs.board import Board, BoardUnreachable
from jobs.config import JobsConfig, Scheduled
from jobs.desk import Desk, LogAway, Wanted, files_by_day
from jobs.machine import Night, run_id
from jobs.places import by_place, place_of, registry_of
from recsys_kd.errors import InputError, OutsideError
from recsys_kd.registry.protocol import Publication
from recsys_kd.registry.redis import masked
from recsys_kd.registry.where import RegistryMissing
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
    known, records, schedule = _known(config, desk, recipe.name), _recorded(config, recipe), _scheduled(config, recipe)
    nights = [Wanted(recipe.name, day.isoformat(), str(path)) for day in days]
    new = [night for night in nights if night.night not in records]
    _check_place(config, recipe, path, [want for want in known.values() if want.night not in records], schedule)
    for night in new:
        _check_recipe(night, known, schedule)
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


def _known(config: JobsConfig, desk: Desk, model: str) -> dict[str, Wanted]:
    """Return a model's nights by date, as desk and board know them; the desk alone where Redis is away."""
    known = {want.night: want for want in desk.wanted() if want.model == model}
    with suppress(BoardUnreachable):  # holds up no record on the desk
        for night in Board(config.state).all():
            if night.model == model:
                known.setdefault(night.night, Wanted(model, night.night, night.recipe))
    return known


def _scheduled(config: JobsConfig, recipe: Recipe) -> list[Scheduled]:
    """Return what the schedule says of a recipe's model; a recipe that can't be read is told by the reconciler."""
    found = []
    for entry in config.models:
        with suppress(InputError):
            if load_recipe(entry.recipe).name == recipe.name:
                found.append(entry)
    return found


def _check_place(
    config: JobsConfig, recipe: Recipe, path: Path, known: list[Wanted], schedule: list[Scheduled]
) -> None:
    """Refuse a model's second place, of another recipe or of this one as it was: a model has one champion."""
    desk, here = Desk(config.desk), place_of(config, recipe)
    for place, there in by_place(config, (w for w in known if not desk.is_cancelled(w.model, w.night))).items():
        if place == here:
            continue
        other = there.nights[0]
        if Path(other.recipe).resolve() == path:
            raise CantBeWanted(
                f"{path}: store or registry is another than that of {run_id(other.model, other.night)}, which was "
                f"begun with this recipe: store {place[0]}, registry {masked(place[1])}; change it back, or move what "
                "is there to the new place"
            )
        raise _second_place(path, recipe.name, f"{other.recipe} too (for {run_id(other.model, other.night)})")
    for entry in schedule:
        if place_of(config, load_recipe(entry.recipe)) != here:
            raise _second_place(path, recipe.name, f"{entry.recipe} too (in `models:`)")


def _second_place(path: Path, model: str, other: str) -> CantBeWanted:
    return CantBeWanted(
        f"{path}: name: '{model}' is the model of {other}, which has another store or registry; give one of them "
        "another name, or both the same places"
    )


def _check_recipe(night: Wanted, known: dict[str, Wanted], schedule: list[Scheduled]) -> None:
    """Refuse a night that is wanted already with another recipe: it would run with that one."""
    recorded = [known[night.night].recipe] if night.night in known else []
    recorded += [str(entry.recipe) for entry in schedule if entry.first.isoformat() <= night.night]
    if recorded and Path(recorded[0]).resolve() != Path(night.recipe):
        raise CantBeWanted(
            f"{run_id(night.model, night.night)} is wanted already, with the recipe {recorded[0]}; change that file, "
            f"or give {night.recipe} another name"
        )


def _recorded(config: JobsConfig, recipe: Recipe) -> dict[str, Publication]:
    """Return the nights that the registry has recorded; none where it is away or still to come: workers ask again."""
    try:
        return registry_of(config, recipe, recipe.name, create=False).state(recipe.name).nights
    except (OutsideError, RegistryMissing):
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
