"""Whether the files that a command is told to write may be written, asked before any work is done for them.

A file that is renamed over the log is the end of the log, and one in the log's folder is read as the log by the next
run: an output that is an input, lies in one, or would change an artifact is refused.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

from recsys_kd.artifact.manifest import MANIFEST
from recsys_kd.errors import InputError
from recsys_kd.registry.where import sqlite_file
from recsys_kd.settings import load_recipe

Paths = Mapping[str, Path | None]
"""Option or what a file is -> its path; None where it is not given."""


class BadOutput(InputError):
    """An output can't be written where it was told to: something else lies there."""

    def __init__(self, option: str, path: Path, why: str) -> None:
        super().__init__(f"{option}: {path} {why}; name another file")


def inputs_of(
    log: Path, recipe: Path | None, store: Path, registry: str | None, **more: Path
) -> dict[str, Path | None]:
    """Return what a comparison reads, by what it is. `more`: what else, by its option. Raises: BadRecipe."""
    catalogue = load_recipe(recipe).data.catalogue if recipe else None
    return {"log": log, "recipe": recipe, "catalogue": catalogue, "registry": sqlite_file(registry, store), **more}


def check_outputs(outputs: Paths, inputs: Paths) -> None:
    """Raise BadOutput where a file to be written is a folder, an input, in one or in an artifact, or named twice."""
    wanted = {option: path for option, path in outputs.items() if path is not None}
    for option, path in wanted.items():
        why = _is_folder(path) or _is_input(path, inputs.items()) or _in_artifact(path)
        if why:
            raise BadOutput(option, path, why)
    for (one, path), (other, same) in combinations(wanted.items(), 2):
        if _same(path, same):
            raise BadOutput(one, path, f"is the file of {other} too")


def check_ending(option: str, path: Path | None, ending: str) -> None:
    """Raise BadOutput where a file's name says that it holds something else than what is written into it."""
    if path is not None and path.suffix.lower() != ending:
        raise BadOutput(option, path, f"does not end with {ending}, and nothing else is written")


def _is_folder(path: Path) -> str:
    return "is a folder" if path.is_dir() or not path.name else ""


def _is_input(path: Path, inputs: Iterable[tuple[str, Path | None]]) -> str:
    for what, given in inputs:
        if given is None:
            continue
        if _same(path, given):
            return f"is the {what} itself, which would be lost"
        if given.is_dir() and path.resolve().is_relative_to(given.resolve()):
            return f"lies in the {what}'s folder {given}, and would be read with it"
    return ""


def _in_artifact(path: Path) -> str:
    folder = next((p for p in path.resolve().parents if (p / MANIFEST).is_file()), None)
    return f"lies in the artifact {folder}, whose files are fixed" if folder else ""


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths are one file: by name, or by a link of either kind."""
    if one.resolve() == other.resolve():
        return True
    return one.exists() and other.exists() and one.samefile(other)
