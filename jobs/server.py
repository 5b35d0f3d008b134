"""The server beside the workers: `python -m jobs.server FOLDER` waits for a champion, then becomes `recsys-kd serve`.

It serves every model of that registry that has a champion by then; later champions of these are taken over as ever. In
FOLDER it keeps what it served last. A server has one registry: models of others are named in its log.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.config import JobsConfig, from_environment
from jobs.desk import Desk
from jobs.logs import configure_logging
from recsys_kd.errors import RecsysKdError
from recsys_kd.registry import where
from recsys_kd.registry.redis import masked
from recsys_kd.settings import Recipe, load_recipe

log = logging.getLogger("recsys_kd.jobs")
_LOOK_SECONDS = 2.0


def recipes(config: JobsConfig) -> Iterator[Recipe]:
    """Yield the recipes of scheduled models, then of submitted ones, one each; what can't be read is passed over."""
    paths = dict.fromkeys([*(m.recipe for m in config.models), *(Path(w.recipe) for w in Desk(config.desk).wanted())])
    for path in paths:
        try:
            yield load_recipe(path)
        except RecsysKdError:
            continue  # the night that needs it says so


@dataclass(frozen=True)
class Command:
    """What serves; the registry's address, which may hold a password, is for the environment: `ps` shows arguments."""

    arguments: list[str]
    registry: str

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the registry."""
        return {**os.environ, where.VARIABLE: self.registry}


def address(config: JobsConfig, recipe: Recipe) -> str:
    """Return a recipe's registry, of an SQLite file its whole path."""
    named = config.registry or recipe.registry or str(recipe.store / where.SQLITE)
    return named if where.is_url(named) else str(Path(named).resolve())


def command(config: JobsConfig) -> Command | None:
    """Return what serves now; None while no model has a champion."""
    for recipe in recipes(config):
        named = address(config, recipe)
        try:
            registry = where.open_registry(named, recipe.store, create=False)
            live = [m for m in registry.models() if registry.pointer(m, "champion") is not None]
        except RecsysKdError:
            continue  # it is away, or was never written to
        if live:
            models = [argument for model in live for argument in ("--model", model)]
            ports = ["--port", str(config.server_port), "--grpc-port", str(config.server_grpc_port)]
            more = ["--config", str(config.server_config)] if config.server_config else []
            return Command([sys.executable, "-m", "recsys_kd", "serve", *models, *ports, *more], named)
    return None


def left_out(config: JobsConfig, registry: str) -> list[str]:
    """Return a sentence for every model that is published in another registry than the one that is served."""
    elsewhere = {recipe.name: named for recipe in recipes(config) if (named := address(config, recipe)) != registry}
    return [
        f"{model} is not served here: it is published in {masked(named)}, this server follows {masked(registry)}; give "
        "all models one `registry` in the jobs configuration, or serve that one by `recsys-kd serve`"
        for model, named in elsewhere.items()
    ]


def main() -> None:
    """Wait, then serve."""
    folder, config = Path(sys.argv[1]), from_environment()
    folder.mkdir(parents=True, exist_ok=True)
    while (found := command(config)) is None:
        time.sleep(_LOOK_SECONDS)  # a registry tells nobody of its first champion
    for sentence in left_out(config, found.registry):
        log.warning(sentence)
    os.chdir(folder)
    os.execve(found.arguments[0], found.arguments, found.environment())


if __name__ == "__main__":
    configure_logging("INFO")
    main()
