"""Where a model's nights are published, and whether that place is there: of an unmounted share an empty folder is left.

A registry made anew in such a folder knows no night, and all of them would run again.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jobs.board import Board
from jobs.config import JobsConfig
from jobs.desk import DEAD, RECIPE, Desk, Wanted, recipe_for
from recsys_kd.errors import InputError, OutsideError
from recsys_kd.registry import where
from recsys_kd.registry.protocol import Registry, State
from recsys_kd.registry.store import COPY, read_copy
from recsys_kd.settings import Recipe


class StoreAway(OutsideError):
    """Nights of a model were published, and its store holds none of them."""

    def __init__(self, store: Path, model: str) -> None:
        super().__init__(
            f"store: {store / model} lacks what was published of {model}; is its share mounted? If `store` was "
            "changed in the recipe, change it back, or move the old store there. If it is lost for good, make that "
            f"folder, then `recsys-kd registry rebuild {model}`, or empty the Redis database `state`"
        )


class RegistryLost(OutsideError):
    """The registry knows nothing of a model whose store has a copy of what was published."""

    def __init__(self, store: Path, model: str) -> None:
        super().__init__(
            f"the registry has lost {model}: {store / model / COPY} names versions and the registry none; the "
            f"reconciler restores it (by hand: `recsys-kd registry rebuild {model}`)"
        )


def recipe_of(config: JobsConfig, model: str, night: str, given: str) -> Recipe:
    """Return a recipe that says where a night is published: what it froze, or the one that it was `given`.

    Raises: BadRecipe, OtherModel.
    """
    frozen = Desk(config.desk).night_folder(model, night) / RECIPE
    return recipe_for(model, night, frozen if frozen.exists() else Path(given))


def place_of(config: JobsConfig, recipe: Recipe) -> tuple[Path, str]:
    """Return a recipe's store and registry, as whole paths or addresses: what two recipes of one model share."""
    named = config.registry or recipe.registry or str(recipe.store / where.SQLITE)
    return recipe.store.resolve(), named if where.is_url(named) else str(Path(named).resolve())


@dataclass
class Place:
    """One store and registry, and the nights of a model that are published there."""

    recipe: Recipe
    nights: list[Wanted] = field(default_factory=list)


def by_place(config: JobsConfig, wanted: Iterable[Wanted]) -> dict[tuple[Path, str], Place]:
    """Return nights by where they are published; those whose recipe can't be used are published nowhere."""
    places: dict[tuple[Path, str], Place] = {}
    read: dict[tuple[Path, str], Recipe | None] = {}  # nights share recipes, and reading one takes milliseconds
    for want in wanted:
        path = _path_of(config, want)
        if (path, want.model) not in read:
            read[path, want.model] = _usable(path, want)
        if (recipe := read[path, want.model]) is not None:
            places.setdefault(place_of(config, recipe), Place(recipe)).nights.append(want)
    return places


def _path_of(config: JobsConfig, want: Wanted) -> Path:
    """Return the recipe that says where a night is published; one that is given up is prepared anew if retried."""
    folder = Desk(config.desk).night_folder(want.model, want.night)
    is_frozen = (folder / RECIPE).exists() and not (folder / DEAD).exists()
    return folder / RECIPE if is_frozen else Path(want.recipe)


def _usable(path: Path, want: Wanted) -> Recipe | None:
    try:
        return recipe_for(want.model, want.night, path)
    except InputError:
        return None


def registry_of(config: JobsConfig, recipe: Recipe, model: str, *, create: bool = True) -> Registry:
    """Return where a model's nights are published; it is made where none was published yet, or to be restored.

    Raises: StoreAway, RegistryUnreachable, BoardUnreachable; RegistryMissing where it is not to be created.
    """
    address, folder = config.registry or recipe.registry, recipe.store / model
    if not os.access(folder / COPY, os.F_OK) and _was_published(config, model):
        try:
            registry = where.open_registry(address, recipe.store, create=False)
        except where.RegistryMissing:
            raise StoreAway(recipe.store, model) from None
        if not any((folder / v.digest).is_dir() for v in registry.versions(model)):
            raise StoreAway(recipe.store, model)
    return where.open_registry(address, recipe.store, create=create)


def whole_registry(config: JobsConfig, recipe: Recipe, model: str) -> Registry:
    """Return where a night may be published: the registry, unless it was emptied and is not restored yet.

    What is recorded in an emptied one stays: it would never be restored, and the nights that it has lost ran again.
    Raises: RegistryLost; what `registry_of` raises.
    """
    registry = registry_of(config, recipe, model)
    if os.access(recipe.store / model / COPY, os.F_OK) and is_lost(registry.state(model), recipe.store, model):
        raise RegistryLost(recipe.store, model)
    return registry


def is_lost(state: State, store: Path, model: str) -> bool:
    """Return whether a registry knows no version of a model, and the store's copy does. Raises: CopyUnreadable."""
    return not state.versions and (copy := read_copy(store, model)) is not None and bool(copy.versions)


def _was_published(config: JobsConfig, model: str) -> bool:
    return any(n.model == model and n.phase == "published" for n in Board(config.state).all())
