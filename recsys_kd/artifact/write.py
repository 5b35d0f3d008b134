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
from recsys_kd.artifact.manifest import MANIFEST, WEIGHTS, Golden, Lineage, Manifest, TableEntry, canonical, digest_of
from recsys_kd.artifact.signing import SIGNATURE, sign, signature_bytes
from recsys_kd.artifact.tensors import dump
from recsys_kd.tables import CodedRows, CompiledStudent, RefinedRows, RowTable, coded_exactly


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


def stored(name: str, array: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
    """Return a matrix as int8 codes and scales where that changes none of its numbers, anything else as it is."""
    coded = coded_exactly(array) if array.ndim == 2 else None
    if coded is not None:
        return {f"array.{name}": coded.codes, f"scale.{name}": coded.scales}
    return {f"array.{name}": array}


def pack(compiled: CompiledStudent) -> tuple[dict[str, NDArray[np.generic]], dict[str, TableEntry]]:
    """Return all tensors by name, and how each table is stored."""
    tensors: dict[str, NDArray[np.generic]] = {}
    entries: dict[str, TableEntry] = {}
    seen: dict[tuple[int, int, int, bytes, bytes], str] = {}
    for name, table in compiled.tables.items():
        base, more = _coded(name, table)
        tensors[f"table.{name}"] = base.data
        if isinstance(table, RefinedRows):
            tensors |= {f"more.{name}": table.more.data, f"hot.{name}": table.hot}
        index = compiled.indexes[name]
        same = (index.base, index.bits, index.kept, index.starts.tobytes(), index.rests.tobytes())
        tensor = seen.setdefault(same, f"index.{name}")
        refined = (more.bits, more.dim) if more else (0, 0)
        entries[name] = TableEntry(base.bits, base.dim, tensor, index.base, index.bits, index.kept, *refined)
        tensors |= {f"{tensor}.starts": index.starts, f"{tensor}.rests": index.rests}
    tensors |= {f"codes.{name}": codes for name, codes in compiled.codes.items()}
    for name, array in compiled.arrays.items():
        tensors |= stored(name, array)
    return tensors, entries


def _coded(name: str, table: RowTable) -> tuple[CodedRows, CodedRows | None]:
    """Return a table's coded rows, and those that refine some of them."""
    if isinstance(table, RefinedRows):
        return table.base, table.more
    if isinstance(table, CodedRows):
        return table, None
    raise TypeError(f"table '{name}' is not quantized; artifacts hold coded tables only")


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


def describe(compiled: CompiledStudent, lineage: Lineage, golden: tuple[Golden, ...]) -> tuple[Manifest, bytes]:
    """Return the manifest and the weights that an artifact would have."""
    tensors, entries = pack(compiled)
    weights = dump(tensors)
    manifest = Manifest(
        compiled.schema,
        compiled.width,
        compiled.first,
        compiled.terms,
        entries,
        len(weights),
        digest_of(weights),
        lineage,
        golden,
        compiled.activations,
    )
    return manifest, weights


def bytes_on_disk(manifest: Manifest, weights: int) -> int:
    """Return what an artifact takes on disk whose weights take so many bytes, its signature included."""
    return weights + len(canonical(manifest.to_json())) + signature_bytes()


def write_artifact(
    store: Path, model: str, compiled: CompiledStudent, lineage: Lineage, golden: tuple[Golden, ...]
) -> Artifact:
    """Write `<store>/<model>/<sha256>/` and return it; the same content is written once. Raises: StoreUnwritable."""
    manifest, weights = describe(compiled, lineage, golden)
    text = canonical(manifest.to_json())
    digest = digest_of(text)
    final, signature = store / model / digest, sign(text)
    signed = {SIGNATURE: signature} if signature else {}
    if not final.exists():
        _publish(final, {WEIGHTS: weights, MANIFEST: text, **signed})
    elif signature and not (final / SIGNATURE).exists():
        _add(final, SIGNATURE, signature)
    return Artifact(final, digest, manifest)


def _add(folder: Path, name: str, data: bytes) -> None:
    """Add a file to an artifact that is there already, whole or not at all: written beside it, then moved in."""
    building = folder.parent / f".building-{uuid.uuid4().hex}"
    try:
        _write(building, data)
        building.rename(folder / name)
        sync_folder(folder)
    except OSError as error:
        raise StoreUnwritable(folder, error.strerror or str(error)) from None
    finally:
        building.unlink(missing_ok=True)


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
