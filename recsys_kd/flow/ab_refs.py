"""What `--control` and `--treatment` name: a column of logged scores, an artifact, or a version in the registry."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recsys_kd.artifact.manifest import MANIFEST, Manifest
from recsys_kd.artifact.read import open_artifact
from recsys_kd.errors import InputError
from recsys_kd.registry.protocol import ALIASES
from recsys_kd.registry.rules import folder
from recsys_kd.registry.where import RegistryMissing, open_registry
from recsys_kd.tables import CompiledStudent

_REGISTERED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})@(\w+)")


class UnknownRef(InputError):
    """A model is named that is not there."""


@dataclass(frozen=True)
class Ref:
    """A resolved name; `column` for logged scores, else the artifact and what it scores with."""

    name: str
    column: str | None = None
    path: Path | None = None
    digest: str | None = None
    manifest: Manifest | None = None
    student: CompiledStudent | None = None

    @property
    def told(self) -> str:
        """What the name stands for, in words that stay true when an alias moves."""
        return f"column '{self.column}'" if self.column else f"{self.name}, artifact {self.digest}"


def resolve(name: str, columns: list[str], store: Path, registry: str | None = None) -> Ref:
    """Return what a name means: a log column first, then an artifact folder, then `model@alias` or `model@version`.

    registry: a Redis URL or an SQLite path; the file in the store where None.
    Raises: UnknownRef, ArtifactRefused, UnknownModel.
    """
    if name in columns:
        return Ref(name, column=name)
    if (Path(name) / MANIFEST).is_file():
        return _artifact(name, Path(name))
    found = _REGISTERED.fullmatch(name)
    if found is None:
        raise UnknownRef(
            f"'{name}' is no column of the log, no artifact folder and not `model@alias`; the log's columns are: "
            f"{', '.join(columns)}"
        )
    return _artifact(name, registered(found[1], found[2], store, registry))


def registered(model: str, which: str, store: Path, where: str | None = None) -> Path:
    """Return the artifact of an alias or version number. Raises: UnknownRef, UnknownModel, ArtifactRefused."""
    try:
        registry = open_registry(where, store, create=False)
    except RegistryMissing:
        told = f"{where} is no registry" if where else f"{store} holds no registry"
        raise UnknownRef(
            f"'{model}@{which}': {told}; give the store's folder with --store, or a registry with --registry"
        ) from None
    if which.isdigit():
        return folder(registry.version(model, int(which)))
    pointer = registry.pointer(model, which)
    if pointer is None:
        known = ", ".join(f"{m}@{a}" for m in registry.models() for a in ALIASES if registry.pointer(m, a)) or "none"
        there = "the registry" if where else store
        raise UnknownRef(f"'{model}@{which}': nothing is registered by that name in {there}; aliases there: {known}")
    return folder(registry.version(model, pointer.number))


def same_artifacts(refs: Iterable[Ref]) -> list[str]:
    """Return notes on names that stand for one artifact."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(r.digest, r.name), r.name) for r in refs if r.digest]
    return [f"'{a}' and '{b}' are the same artifact: they can't differ" for a, b in pairs if a != b]


def _artifact(name: str, path: Path) -> Ref:
    artifact, student = open_artifact(path.resolve())
    return Ref(name, path=path.resolve(), digest=artifact.digest, manifest=artifact.manifest, student=student)
