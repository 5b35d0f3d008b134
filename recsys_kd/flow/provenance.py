"""What a stage's result depends on beside its inputs: this package's own code, libraries, and plugged-in teachers."""

import hashlib
import json
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any

from recsys_kd.models.plugins import BUILT_IN, GROUP
from recsys_kd.settings import Recipe

_PACKAGE = Path(__file__).resolve().parents[1]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(folder: Path, pattern: str = "*") -> str:
    """Return the SHA-256 over the names and bytes of a folder's files, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob(pattern) if p.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{file_digest(path)}\0".encode())
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """Return a digest of this package's Python files and of the libraries that do its arithmetic.

    A version number alone would let a repaired defect, or a new torch, reuse what the old one made.
    """
    libraries = [version(name) for name in ("torch", "numpy")]
    return hashlib.sha256(json.dumps([digest_of_files(_PACKAGE, "*.py"), libraries]).encode()).hexdigest()


def teacher_code(kind: str) -> str:
    """Return what names the code of a teacher: its kind, and where it is plugged in its distribution and version."""
    if kind in BUILT_IN:
        return kind
    return " ".join([kind, *(_origin(e) for e in entry_points(group=GROUP) if e.name == kind)])


def _origin(entry: EntryPoint) -> str:
    return f"{entry.value} {entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def recipe_digest(recipe: Recipe) -> str:
    """Return a digest of what a recipe asks for: folders and threads, which differ between machines, are left out."""
    plain: dict[str, Any] = recipe.model_dump(mode="json", exclude={"store", "work", "threads"})
    plain["data"] = {k: v for k, v in plain["data"].items() if k not in ("path", "catalogue")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
