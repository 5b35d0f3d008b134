"""What a night leaves: tidied once it is published, kept for a look where it was given up, and in the end forgotten.

What grows with every published night is its record in the registry alone; everything else, on disk and in Redis, is
there for the newest `limits.keep_versions` of them. A night that was given up or cancelled keeps for good what says so:
its state on the board, and on the desk its record as wanted and its letter. Without them it would run again.
"""

import json
import os
import platform
import socket
from dataclasses import asdict
from pathlib import Path

from jobs import desk as desks
from jobs import machine
from jobs.board import Board
from jobs.config import JobsConfig
from jobs.desk import Desk
from jobs.machine import Night
from jobs.places import whole_registry
from recsys_kd.registry.store import collect
from recsys_kd.settings import load_recipe


def tidy(config: JobsConfig, night: Night) -> None:
    """Remove what a published night no longer needs: its intermediate results, and old artifacts that nobody uses."""
    desk, limits = Desk(config.desk), config.limits
    recipe = load_recipe(desk.night_folder(night.model, night.night) / desks.RECIPE)
    registry = whole_registry(config, recipe, night.model)
    who = f"{socket.gethostname()}:{os.getpid()}"
    collect(registry, recipe.store, night.model, limits.keep_versions, limits.keep_seconds, who)
    desk.tidy(night.model, night.night)
    recorded = sorted(registry.state(night.model).nights)
    old = [n for n in recorded[: -limits.keep_versions] if n != night.night]
    desk.forget(night.model, old)
    Board(config.state).forget([machine.run_id(night.model, n) for n in old])
    desk.sweep(night.model, limits.keep_seconds)
    shed(config, night.model)


def shed(config: JobsConfig, model: str) -> None:
    """Of a model's nights that were given up or cancelled, keep the links and results of the newest only.

    What tells why, and the record that they are over, stays; `retry` makes the rest again.
    """
    board, desk = Board(config.state), Desk(config.desk)
    over = [n for n in board.all() if n.model == model and _is_given_up(n)]
    for night in over[: -config.limits.keep_versions]:
        if _is_given_up(board.get(night.run)):  # still: else somebody has retried it, and it needs what it has
            desk.tidy(model, night.night)
            board.forget_lines([night.run])


def _is_given_up(night: Night | None) -> bool:
    return night is not None and night.phase in ("dead", "cancelled")


def bury(config: JobsConfig, night: Night) -> None:
    """Write down what is needed to look into a night that is given up."""
    folder = Desk(config.desk).night_folder(night.model, night.night)
    letter = {
        "night": asdict(night),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "folder": str(folder),
        "repeat": f"recsys-kd run {folder / desks.RECIPE} --no-publish",
        "retry": f"recsys-kd jobs retry {night.run}",
        "last_lines": _tail(folder / desks.ERRORS),
    }
    desks.write_whole(folder / desks.DEAD, json.dumps(letter, indent=2))
    shed(config, night.model)


def _tail(path: Path, lines: int = 50) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
