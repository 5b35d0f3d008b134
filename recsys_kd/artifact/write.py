"""Write an artifact so that a reader sees all of it or nothing: temporary folder, fsync, rename, fsync again."""

import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.artifact.errors import StoreUnwritable
from recsys_kd.artifact.manifest import MANIFEST, WEIGHTS, Golden, Lineage, Manifest, canonical, digest_of
from recsys_kd.artifact.tensors import dump
from recsys_kd.tables import CompiledStudent, Int8Table


@dataclass(frozen=True)
class Artifact:
    """A folder whose name is its content hash."""

    path: Path
    digest: str
    manifest: Manifest

    @property
    def bytes_on_disk(self) -> int:
        """All files of the artifact, manifest and indexes included."""
        return sum(p.stat().st_size for p in self.path.iterdir())


def narrow(keys: NDArray[np.int64]) -> NDArray[np.generic]:
    """Return sorted keys as int32 where all of them fit, else as int64."""
    limits = np.iinfo(np.int32)
    fits = len(keys) == 0 or (keys[0] >= limits.min and keys[-1] <= limits.max)
    return keys.astype(np.int32) if fits else keys.astype(np.int64)


def pack(compiled: CompiledStudent) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Return all tensors by name, and which tensor holds each table's keys."""
    tensors: dict[str, NDArray[np.generic]] = {}
    indexes: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    for name, table in compiled.tables.items():
        if not isinstance(table, Int8Table):
            raise TypeError(f"table '{name}' is not quantized; artifacts hold int8 tables only")
        tensors[f"table.{name}"] = table.data
        keys = narrow(compiled.indexes[name])
        indexes[name] = seen.setdefault(keys.tobytes(), f"index.{name}")
        tensors[indexes[name]] = keys
    tensors |= {f"codes.{name}": codes for name, codes in compiled.codes.items()}
    tensors |= {f"array.{name}": array for name, array in compiled.arrays.items()}
    return tensors, indexes


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_artifact(
    store: Path, model: str, compiled: CompiledStudent, lineage: Lineage, golden: tuple[Golden, ...]
) -> Artifact:
    """Write `<store>/<model>/<sha256>/` and return it; the same content is written once. Raises: StoreUnwritable."""
    tensors, indexes = pack(compiled)
    weights = dump(tensors)
    manifest = Manifest(
        compiled.schema,
        compiled.width,
        compiled.first,
        compiled.terms,
        indexes,
        len(weights),
        digest_of(weights),
        lineage,
        golden,
    )
    text = canonical(manifest.to_json())
    digest = digest_of(text)
    final = store / model / digest
    if not final.exists():
        _publish(final, {WEIGHTS: weights, MANIFEST: text})
    return Artifact(final, digest, manifest)


def _publish(final: Path, files: Mapping[str, bytes]) -> None:
    building = final.parent / f".building-{uuid.uuid4().hex}"
    try:
        building.mkdir(parents=True)
        for name, data in files.items():
            _write(building / name, data)
        sync_folder(building)
        building.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        if not final.exists():
            raise StoreUnwritable(final.parent, error.strerror or str(error)) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
