"""What the server beside the workers serves: one registry, and its models that have a champion."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.config import JobsConfig
from jobs.desk import Desk, write_whole
from recsys_kd.errors import RecsysKdError
from recsys_kd.registry import where
from recsys_kd.registry.redis import masked
from recsys_kd.settings import Recipe, load_recipe

KEPT = "served.json"


@dataclass(frozen=True)
class Live:
    """A registry's address, and its models that have a champion."""

    registry: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """What was served last; the registry without its password."""

    registry: str
    models: tuple[str, ...]


def kept(folder: Path) -> Kept | None:
    """Return what was served last from a folder."""
    try:
        found = json.loads((folder / KEPT).read_text())
        return Kept(str(found["registry"]), tuple(str(m) for m in found["models"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(folder: Path, live: Live) -> None:
    """Remember what is served, for the next start, where that is news. Raises: DeskUnwritable."""
    now = Kept(masked(live.registry), live.models)
    if kept(folder) != now:
        write_whole(folder / KEPT, json.dumps(asdict(now)))


def published(config: JobsConfig, before: Kept | None) -> Live | None:
    """Return what is to be served; None while no model has a champion.

    The registry that was served before comes first while a recipe names it, and if it is away, its models as they were:
    a server has their last versions. Else it is the first with a champion: scheduled models, then submitted ones.
    """
    stores: dict[str, Path] = {}
    for recipe in recipes(config):
        stores.setdefault(address(config, recipe), recipe.store)
    for registry in sorted(stores, key=lambda a: before is None or masked(a) != before.registry):
        known = before.models if before is not None and masked(registry) == before.registry else ()
        if found := tuple(dict.fromkeys((*known, *_champions(registry, stores[registry])))):
            return Live(registry, found)
    return None


def _champions(registry: str, store: Path) -> list[str]:
    try:
        opened = where.open_registry(registry, store, create=False)
        return [m for m in opened.models() if opened.pointer(m, "champion") is not None]
    except RecsysKdError:
        return []  # it is away, or was never written to


def recipes(config: JobsConfig) -> Iterator[Recipe]:
    """Yield the recipes of scheduled models, then of submitted ones, one each; what can't be read is passed over."""
    paths = dict.fromkeys([*(m.recipe for m in config.models), *(Path(w.recipe) for w in Desk(config.desk).wanted())])
    for path in paths:
        try:
            yield load_recipe(path)
        except RecsysKdError:
            continue  # the night that needs it says so


def address(config: JobsConfig, recipe: Recipe) -> str:
    """Return a recipe's registry, of an SQLite file its whole path."""
    named = config.registry or recipe.registry or str(recipe.store / where.SQLITE)
    return named if where.is_url(named) else str(Path(named).resolve())


def left_out(config: JobsConfig, registry: str) -> list[str]:
    """Return a sentence for every model that is published in another registry than the one that is served."""
    elsewhere = {recipe.name: named for recipe in recipes(config) if (named := address(config, recipe)) != registry}
    return [
        f"{model} is not served here: it is published in {masked(named)}, this server follows {masked(registry)}; give "
        "all models one `registry` in the jobs configuration, or serve that one by `recsys-kd serve`"
        for model, named in elsewhere.items()
    ]
