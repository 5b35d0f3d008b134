"""Read an artifact, trusting nothing: every rule is a check of its own with a name, on the bytes that are then used."""

import json
import mmap
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.manifest import MANIFEST, WEIGHTS, Manifest, TableEntry, canonical, digest_of
from recsys_kd.artifact.rules import schema_fault, term_fault, terms_fault
from recsys_kd.artifact.signing import SIGNATURE, SIZE, signature_fault
from recsys_kd.artifact.tensors import BadTensors, load
from recsys_kd.artifact.write import Artifact
from recsys_kd.index import BadIndex, KeyIndex
from recsys_kd.tables import OVERHEAD, CodedRows, CompiledStudent, RefinedRows, Term, code_bytes

MAX_MANIFEST = 16 << 20
Tensors = Mapping[str, NDArray[np.generic]]


def open_artifact(path: Path) -> tuple[Artifact, CompiledStudent]:
    """Verify and map an artifact; its tables are views of the mapped file. Raises: ArtifactRefused."""
    _check_files(path)
    text = bytes(_map(path / MANIFEST, path, MAX_MANIFEST))
    if digest_of(text) != path.name:
        raise ArtifactRefused(
            path, "manifest-digest", f"the manifest's sha256 is {digest_of(text)[:12]}, not the folder's name"
        )
    if fault := signature_fault(text, _signature(path)):
        raise ArtifactRefused(path, "signature", fault)
    manifest = _parse_manifest(path, text)
    weights = _map(path / WEIGHTS, path, None)
    if len(weights) != manifest.weights_bytes:
        raise ArtifactRefused(
            path, "size", f"{WEIGHTS} has {len(weights)} bytes, the manifest says {manifest.weights_bytes}"
        )
    found = digest_of(weights)  # type: ignore[arg-type]
    if found != manifest.weights_sha256:
        raise ArtifactRefused(
            path, "sha256", f"{WEIGHTS} hashes to {found[:12]}, the manifest says {manifest.weights_sha256[:12]}"
        )
    try:
        tensors = load(weights)
    except BadTensors as error:
        raise ArtifactRefused(path, "tensors", str(error)) from None
    compiled = _assemble(path, manifest, tensors)
    return Artifact(path, path.name, manifest), compiled


def _check_files(path: Path) -> None:
    if not path.is_dir():
        raise ArtifactRefused(path, "exists", "there is no such folder")
    names = {entry.name for entry in os.scandir(path)}
    if names - {SIGNATURE} != {MANIFEST, WEIGHTS}:
        raise ArtifactRefused(path, "files", f"it holds {sorted(names)}, expected {[MANIFEST, WEIGHTS]}")


def _signature(path: Path) -> bytes | None:
    if SIGNATURE not in {entry.name for entry in os.scandir(path)}:
        return None
    signature = bytes(_map(path / SIGNATURE, path, SIZE))
    if len(signature) != SIZE:
        raise ArtifactRefused(path, "signature", f"{SIGNATURE} has {len(signature)} bytes, a signature {SIZE}")
    return signature


def _map(file: Path, artifact: Path, limit: int | None) -> memoryview:
    """Map a regular file through one descriptor, symbolic links refused."""
    try:
        # O_NONBLOCK: a pipe in place of a file is not waited for.
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ArtifactRefused(artifact, "regular-file", f"{file.name}: {error.strerror}") from None
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise ArtifactRefused(artifact, "regular-file", f"{file.name} is not a regular file")
        if info.st_size == 0 or (limit is not None and info.st_size > limit):
            raise ArtifactRefused(artifact, "size", f"{file.name} has {info.st_size} bytes")
        return memoryview(mmap.mmap(handle, info.st_size, access=mmap.ACCESS_READ))
    finally:
        os.close(handle)


def _parse_manifest(path: Path, text: bytes) -> Manifest:
    try:
        data = json.loads(text)
        if canonical(data) != text:
            raise ValueError("it is not in canonical form")
        manifest = Manifest.from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactRefused(path, "manifest", f"{type(error).__name__}: {error}") from None
    if fault := schema_fault(manifest.schema):
        raise ArtifactRefused(path, "schema", fault)
    if data["fingerprint"] != manifest.schema.fingerprint:
        raise ArtifactRefused(path, "fingerprint", "the schema does not have the fingerprint that the manifest gives")
    return manifest


class _Assembler:
    """Takes tensors by name, checking each; what is left over is refused too."""

    def __init__(self, path: Path, tensors: Tensors) -> None:
        self.path, self.tensors = path, tensors
        self.taken: set[str] = set()

    def refuse(self, check: str, detail: str) -> ArtifactRefused:
        return ArtifactRefused(self.path, check, detail)

    def take(self, name: str, kinds: tuple[str, ...], shape: tuple[int | None, ...]) -> NDArray[np.generic]:
        """Return a tensor of one of the dtypes whose shape agrees (None: any length)."""
        if name not in self.tensors:
            raise self.refuse("tensor-names", f"tensor '{name}' is missing")
        array = self.tensors[name]
        self.taken.add(name)
        fits = len(shape) == array.ndim and all(w is None or w == n for w, n in zip(shape, array.shape, strict=True))
        if array.dtype.name not in kinds or not fits:
            raise self.refuse(
                "shapes", f"tensor '{name}' is {array.dtype.name} {array.shape}, expected {kinds} {shape}"
            )
        return array

    def floats(self, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
        stored = self.take(f"array.{name}", ("int8", "float32") if len(shape) == 2 else ("float32",), shape)
        array = stored.astype(np.float32, copy=False)
        if stored.dtype == np.int8:
            array = array * self.scales(name, len(stored))
        if not np.isfinite(array).all():
            raise self.refuse("finite", f"array '{name}' holds NaN or infinite values")
        return array

    def scales(self, name: str, rows: int) -> NDArray[np.float32]:
        """Return the scales of a coded matrix [rows, 1]; a row of zeros has scale 0."""
        scales = self.take(f"scale.{name}", ("float16",), (rows,)).astype(np.float32)
        if not (np.isfinite(scales).all() and (scales >= 0).all()):
            raise self.refuse("scales", f"array '{name}' has scales that are negative, or not finite")
        return scales[:, None]

    def index(self, entry: TableEntry) -> KeyIndex:
        starts = self.take(f"{entry.index}.starts", ("uint32",), (None,)).astype(np.uint32, copy=False)
        rests = self.take(f"{entry.index}.rests", ("uint8",), (None, None)).astype(np.uint8, copy=False)
        index = KeyIndex(entry.key_base, entry.key_bits, entry.key_kept, starts, rests)
        try:
            index.check()
        except BadIndex as error:
            raise self.refuse("index", f"'{entry.index}': {error}") from None
        return index

    def table(self, name: str, entry: TableEntry, rows: int) -> CodedRows | RefinedRows:
        base = self.coded(name, f"table.{name}", entry.bits, entry.dim)
        if base.rows != rows:
            raise self.refuse("index-rows", f"table '{name}' has {base.rows} rows for {rows - 1} keys and the fallback")
        if not (entry.more_bits or entry.more_dim):
            return base
        more = self.coded(name, f"more.{name}", entry.more_bits, entry.more_dim)
        hot = self.take(f"hot.{name}", ("uint8",), ((rows + 7) // 8,)).astype(np.uint8, copy=False)
        bits = np.unpackbits(hot, bitorder="little")
        if more.dim < base.dim or bits[rows:].any() or int(bits.sum()) + 1 != more.rows:
            raise self.refuse(
                "tiers",
                f"table '{name}': {more.rows} rows of {more.dim} numbers can't refine {int(bits.sum())} of its "
                f"{rows} rows of {base.dim}",
            )
        return RefinedRows(base, more, hot)

    def coded(self, name: str, tensor: str, bits: int, dim: int) -> CodedRows:
        if type(bits) is not int or bits not in (4, 8) or type(dim) is not int or not 0 < dim <= 65536:
            raise self.refuse("shapes", f"table '{name}' has {dim!r} numbers of {bits!r} bits per row")
        width = code_bytes(dim, bits) + OVERHEAD
        data = self.take(tensor, ("uint8",), (None, width)).astype(np.uint8, copy=False)
        table = CodedRows(data, 4 if bits == 4 else 8, dim)
        scales = table.scales()
        if not (len(scales) and np.isfinite(scales).all() and (scales > 0).all()):
            raise self.refuse("scales", f"table '{name}' has scales that are not positive, or not finite")
        return table

    def codes(self, field: str, items: int, rows: int) -> NDArray[np.integer]:
        kinds = ("uint8", "uint16", "int32")
        codes: NDArray[np.integer] = self.take(f"codes.{field}", kinds, (items,))  # type: ignore[assignment]
        if len(codes) and (codes.min() < 0 or codes.max() >= rows):
            raise self.refuse("index-bounds", f"codes of '{field}' point outside its {rows} rows")
        return codes


def _assemble(path: Path, manifest: Manifest, tensors: Tensors) -> CompiledStudent:
    take = _Assembler(path, tensors)
    d, first = manifest.width, manifest.first
    if not (type(d) is int and type(first) is int and 0 < d <= 4096 and 0 < first <= 65536):
        raise take.refuse("shapes", f"width {d!r} and first layer {first!r} are not sensible")
    views: dict[str, tuple[str, int]] = {}
    for term in manifest.terms:
        _check_term(take, manifest, term, views)
    if fault := terms_fault(manifest):
        raise take.refuse("terms", fault)
    used = sorted({table for table, _ in views.values()})
    if used != sorted(manifest.tables):
        raise take.refuse("tensor-names", f"tables name {sorted(manifest.tables)}, terms use {used}")
    indexes = {name: take.index(manifest.tables[name]) for name in used}
    tables = {name: take.table(name, manifest.tables[name], len(indexes[name]) + 1) for name in used}
    keyed = {t.table for t in manifest.terms if t.side == "candidate"}
    if wrong := [name for name in used if name in keyed and isinstance(tables[name], RefinedRows)]:
        raise take.refuse("tiers", f"candidates look up {wrong} by key: such tables have one tier")
    arrays: dict[str, NDArray[np.float32]] = {}
    for view, (table, dim) in views.items():
        arrays[f"basis.{view}"] = take.floats(f"basis.{view}", (tables[table].dim, dim))
        arrays[f"mean.{view}"] = take.floats(f"mean.{view}", (dim,))
    for term in manifest.terms:
        arrays |= _term_arrays(take, manifest, term)
    arrays |= _head_arrays(take, first)
    coded = [t for t in manifest.terms if t.side == "item" and t.name != "item"]
    codes = {t.name: take.codes(t.name, tables["item"].rows, tables[t.table or ""].rows) for t in coded}
    left = set(tensors) - take.taken
    if left:
        raise take.refuse("tensor-names", f"tensors {sorted(left)} are not used by any term")
    parts = tables, indexes, arrays, codes
    return CompiledStudent(manifest.schema, d, first, manifest.terms, *parts, manifest.activations)


def _check_term(take: _Assembler, manifest: Manifest, term: Term, views: dict[str, tuple[str, int]]) -> None:
    """Check a term against the schema, and note its view's table and width."""
    if fault := term_fault(manifest, term):
        raise take.refuse("terms", fault)
    if term.table is not None:
        dim = manifest.width + 1 if term.layout == "compact" else manifest.first + manifest.width + 1
        if term.view is None or views.setdefault(term.view, (term.table, dim)) != (term.table, dim):
            raise take.refuse("terms", f"view '{term.view}' is used both compact and folded, or of two tables")


def _term_arrays(take: _Assembler, manifest: Manifest, term: Term) -> dict[str, NDArray[np.float32]]:
    if term.layout == "folded":
        return {}
    d, first, dim = manifest.width, manifest.first, manifest.schema.field(term.field).dim
    shapes: dict[str, tuple[int | None, ...]] = {f"first.{term.name}": (first, d if term.kind != "dense" else dim)}
    if term.table is None:
        shapes[f"linear.{term.name}"] = (dim,)
    if term.kind == "vector":
        shapes[f"project.{term.name}"] = (d, dim)
    return {name: take.floats(name, shape) for name, shape in shapes.items()}


def _head_arrays(take: _Assembler, first: int) -> dict[str, NDArray[np.float32]]:
    arrays = {"bias": take.floats("bias", (1,)), "hidden.0.bias": take.floats("hidden.0.bias", (first,))}
    last, i = first, 1
    while f"array.hidden.{i}.weight" in take.tensors:
        weight = take.floats(f"hidden.{i}.weight", (None, last))
        last = weight.shape[0]
        arrays |= {f"hidden.{i}.weight": weight, f"hidden.{i}.bias": take.floats(f"hidden.{i}.bias", (last,))}
        i += 1
    if "array.calibration" in take.tensors:
        arrays["calibration"] = take.floats("calibration", (2,))
    return arrays | {"out.weight": take.floats("out.weight", (last,))}
