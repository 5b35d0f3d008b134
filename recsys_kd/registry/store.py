"""The artifact store as the registry's truth: its copy beside the artifacts, rebuilding from it, and collecting.

`<store>/<model>/registry.json` is a copy of a model's whole state, written after every change of champion that is made
where the store is. A registry that was lost is restored from it; artifacts that it does not name yet are registered
again from their manifests.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.read import open_artifact
from recsys_kd.artifact.write import sync_folder
from recsys_kd.errors import OutsideError
from recsys_kd.registry import history
from recsys_kd.registry.protocol import REBUILT, Pointer, Publication, Registry, State, Step, Version, VersionInUse

COPY, REPORTS = "registry.json", "reports"
_DIGEST_LENGTH = 64


class CopyUnreadable(OutsideError):
    """The registry's copy in the store can't be read."""


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found."""

    model: str
    versions: int
    nights: int
    champion: str | None
    registered: int
    """Artifacts that the copy did not name."""
    refused: tuple[str, ...]
    """Artifacts that do not verify; they stay where they are, unregistered."""
    next_epoch: int
    """Of the next champion: above what services have seen of the registry that was lost, so that they follow it."""


def write_copy(registry: Registry, store: Path, model: str) -> Path:
    """Write a model's state beside its artifacts, whole or not at all; an older state never replaces a newer one."""
    state, path = registry.state(model), store / model / COPY
    known = read_copy(store, model)
    if known is not None and _age(known) > _age(state):
        return path
    building = path.with_name(f".{COPY}-{uuid.uuid4().hex}")
    steps = history.steps(state, registry.audit(model))  # the copy is all that is left of the log once it is lost
    plain = asdict(replace(state, steps=steps)) | {"collected": sorted(state.collected)}
    try:
        with building.open("x") as file:
            json.dump(plain, file)
            file.flush()
            os.fsync(file.fileno())
        building.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutsideError(f"{path}: {error.strerror}; free space, or make the store writable") from None
    finally:
        building.unlink(missing_ok=True)
    return path


def keep_copy(registry: Registry, state: State, store: Path, model: str) -> None:
    """Write the copy where the store's is older than `state`: a rollback, say, was made on a machine without it."""
    known = read_copy(store, model)
    if known is None or _age(known) < _age(state):
        write_copy(registry, store, model)


def copy_beside(registry: Registry, store: Path, model: str) -> None:
    """Write the copy where the store is the one that holds the champion; elsewhere do nothing."""
    champion = registry.pointer(model, "champion")
    if champion is not None and (store / model / champion.digest).is_dir():
        write_copy(registry, store, model)


def _age(state: State) -> tuple[int, int, int]:
    return state.epoch, len(state.nights), len(state.versions)


def read_copy(store: Path, model: str) -> State | None:
    """Return the state that the store holds of a model, None where there is none. Raises: CopyUnreadable."""
    path = store / model / COPY
    try:
        found = json.loads(path.read_text())
        return State(
            {int(n): Version(**v) for n, v in found["versions"].items()},
            {alias: Pointer(**p) for alias, p in found["aliases"].items()},
            {night: Publication(**p) for night, p in found["nights"].items()},
            found["tokens"],
            frozenset(found["collected"]),
            {int(epoch): Step(**s) for epoch, s in found.get("steps", {}).items()},  # older copies have none
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CopyUnreadable(f"{path}: {error}; move it away to rebuild from the artifacts alone") from None


def artifacts(store: Path, model: str) -> list[Path]:
    """Return a model's artifact folders."""
    folder = store / model
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if p.is_dir() and len(p.name) == _DIGEST_LENGTH)


def rebuild(registry: Registry, store: Path, model: str, who: str) -> Rebuilt:
    """Restore a lost model from the store. Raises: RegistryNotEmpty where the registry still knows it."""
    state = read_copy(store, model)
    if state is not None and state.versions:
        registry.restore(model, _with_what_is_there(state, store / model), who)
    known = {v.digest for v in registry.state(model).versions.values()}
    found, refused = [], []
    for path in artifacts(store, model):
        if path.name in known:
            continue
        try:
            found.append((open_artifact(path)[0].manifest.lineage, path))
        except ArtifactRefused as error:
            refused.append(str(error))
    for lineage, path in sorted(found, key=lambda pair: (pair[0].created, pair[1].name)):
        registry.register(model, path.name, path, asdict(lineage), who)
    if registry.state(model).versions:
        registry.claim(model, REBUILT)
    now = registry.state(model)
    champion = now.aliases.get("champion")
    live = None if champion is None else champion.digest
    return Rebuilt(model, len(now.versions), len(now.nights), live, len(found), tuple(refused), now.next_epoch)


def _with_what_is_there(state: State, folder: Path) -> State:
    """Return a copy's state with every version marked whose files were collected since the copy was written."""
    gone = {number for number, version in state.versions.items() if not (folder / version.digest).is_dir()}
    return replace(state, collected=state.collected | gone)


@dataclass(frozen=True)
class Collected:
    """What a collection freed, and what it kept although it was asked for."""

    removed: tuple[str, ...]
    bytes: int
    in_use: tuple[str, ...]


def collect(registry: Registry, store: Path, model: str, keep: int, min_age_seconds: float, who: str) -> Collected:
    """Remove a model's artifacts but the newest `keep` versions and what is used.

    Used is what an alias or live service names, and what the next rollback goes to.

    A version is marked first, after which it can't become champion; then its folder is renamed and removed. Folders
    younger than `min_age_seconds` stay, registered or not: their night may be about to publish them. Reports go with
    their artifacts.
    """
    state = registry.state(model)
    newest = {v.digest for _, v in sorted(state.versions.items())[-keep:]} if keep else set()
    numbers = {v.digest: n for n, v in state.versions.items()}
    removed, size, used = [], 0, []
    for path in artifacts(store, model):
        if path.name in newest or _seconds_old(path) < min_age_seconds:
            continue
        if path.name in numbers:
            try:
                registry.collect(model, numbers[path.name], who, "gc")
            except VersionInUse:
                used.append(path.name)
                continue
        size += _remove(path)
        report = store / model / REPORTS / path.name[:12]
        size += _remove(report) if report.is_dir() else 0
        removed.append(path.name)
    for path in _leftovers(store / model, min_age_seconds):
        size += _remove(path)
    return Collected(tuple(removed), size, tuple(used))


def _leftovers(folder: Path, min_age_seconds: float) -> Iterator[Path]:
    """Yield the folders and files that whoever was killed left half-made, or half-removed."""
    for name in (".building-*", ".collected-*", f".{COPY}-*"):
        for path in list(folder.glob(name)):
            if _seconds_old(path) >= min_age_seconds:
                yield path


def _seconds_old(path: Path) -> float:
    """Return a folder's or file's age; 0 where somebody else collects it just now."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(path: Path) -> int:
    """Take a folder, or a file, out of reach in one step, then remove it; return its bytes.

    They are 0 where somebody else was faster.
    """
    gone = path.with_name(f".collected-{path.name[:12]}-{uuid.uuid4().hex[:8]}")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return 0
    if not gone.is_dir():
        size = gone.stat().st_size
        gone.unlink()
        return size
    size = sum(p.stat().st_size for p in gone.rglob("*"))
    shutil.rmtree(gone, ignore_errors=True)
    return size
