"""Tensors of the Open Inference Protocol -> a request's fields and candidates, checked; every refusal says what is
expected.

One request is one user's: `item_id` [N] are the candidates; every request-side field is a tensor of its name ([1]; a
history [any]; a vector [dim]; absent or empty where it is missing), every candidate-side field one of [N] or [N, dim].
Ids are INT64 (INT32) or BYTES (UTF-8), as in the log; numbers FP32 (FP64, INT32, INT64).
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.schema import ITEM, Field, Schema
from recsys_kd_kserve.config import Refused

_RAW = {"INT64": "<i8", "INT32": "<i4", "FP32": "<f4", "FP64": "<f8"}
_INTS, _NUMBERS = ("INT64", "INT32"), ("FP32", "FP64", "INT64", "INT32")


@dataclass(frozen=True)
class Tensor:
    """An input as it came: `data` a flat or nested list, or `raw` little-endian bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any = None
    raw: bytes | None = None


@dataclass(frozen=True)
class Decoded:
    """What `Service.score` takes."""

    request: dict[str, Any]
    candidates: Any
    features: dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """An inference request, whichever protocol it came by; no outputs: the probabilities."""

    tensors: Sequence[Tensor]
    outputs: Sequence[str] = ()
    version: str | None = None
    id: str = ""
    binary: bool = False
    """REST: whether the outputs go out as binary data."""


@dataclass(frozen=True)
class Given:
    """The answer: float32 [N] per output, and the version that all of it is from."""

    outputs: Mapping[str, NDArray[np.float32]]
    version: str
    digest: str


class Decoder:
    """Decodes the inputs of one schema."""

    def __init__(self, schema: Schema, max_candidates: int) -> None:
        self.max_candidates = max_candidates
        self._fields = {f.name: f for f in schema.fields if f.side != "item" or f.name == ITEM}
        self._strings = {
            f.name: schema.vocabularies[f.vocabulary].keys == "string" for f in schema.fields if f.vocabulary
        }

    def inputs(self) -> list[dict[str, Any]]:
        """Return name, datatype and shape of every input, as model metadata has them; -1 is the candidates' number."""
        return [{"name": n, "datatype": self._types(f)[0], "shape": _shape(f)} for n, f in self._fields.items()]

    def decode(self, tensors: Iterable[Tensor]) -> Decoded:
        """Return a request's parts. Raises: Refused."""
        found: dict[str, Tensor] = {}
        for tensor in tensors:
            if tensor.name in found:
                raise Refused(400, f"input '{tensor.name}' is there twice")
            found[tensor.name] = tensor
        if unknown := sorted(found.keys() - self._fields.keys()):
            raise Refused(400, f"unknown input '{unknown[0]}'; this model takes {self.described()}")
        if ITEM not in found:
            raise Refused(400, f"input '{ITEM}' with the candidates is missing; this model takes {self.described()}")
        rows = self._rows(found[ITEM])
        request, features = {}, {}
        for name, tensor in found.items():
            field = self._fields[name]
            if field.side == "candidate":
                features[name] = self._values(field, tensor, rows)
            elif name != ITEM:
                request[name] = self._request_value(field, self._values(field, tensor, rows))
        return Decoded(request, self._values(self._fields[ITEM], found[ITEM], rows), features)

    def described(self) -> str:
        """Return the inputs in words."""
        return ", ".join(f"{i['name']} {i['datatype']}{i['shape']}" for i in self.inputs())

    def _rows(self, tensor: Tensor) -> int:
        if len(tensor.shape) != 1 or tensor.shape[0] < 0:
            raise Refused(400, f"input '{ITEM}' has shape {_shown(tensor.shape)}, [N] is expected")
        if tensor.shape[0] > self.max_candidates:
            raise Refused(
                400, f"input '{ITEM}' has {tensor.shape[0]} candidates, at most {self.max_candidates} are taken at once"
            )
        return tensor.shape[0]

    def _types(self, field: Field) -> tuple[str, ...]:
        if not field.is_lookup:
            return _NUMBERS
        return ("BYTES",) if self._strings[field.name] else _INTS

    def _values(self, field: Field, tensor: Tensor, rows: int) -> Any:
        """Return an input's values: an array or a list of strings, in the shape that the field has."""
        types = self._types(field)
        if tensor.datatype not in types:
            raise Refused(400, f"input '{field.name}' is {tensor.datatype}, {' or '.join(types)} is expected")
        if min(tensor.shape, default=0) < 0 or not _fits(field, tensor.shape, rows):
            want = [rows if n == -1 and field.side != "request" else n for n in _shape(field)]
            raise Refused(400, f"input '{field.name}' has shape {_shown(tensor.shape)}, {want} is expected")
        values = _read(tensor, prod(tensor.shape))  # of a million dimensions it would take minutes
        if not field.is_lookup:
            with np.errstate(over="ignore"):  # what float32 can't hold is refused by the model, as infinite
                values = values.astype(np.float32)
        return values.reshape(rows, field.dim) if field.side == "candidate" and field.dim > 1 else values

    def _request_value(self, field: Field, values: Any) -> Any:
        if field.kind == "bag":
            return values
        if not len(values):
            return None
        if field.kind == "vector":
            return values
        value = values[0]
        return value if isinstance(value, str) else value.item()


def _shown(shape: Sequence[int]) -> str:
    """Return a shape, of hostile ones the first dimensions."""
    return str(list(shape)) if len(shape) <= 8 else f"first {list(shape[:8])} ({len(shape)} dimensions)"


def _shape(field: Field) -> list[int]:
    if field.side == "request":
        return [-1] if field.kind == "bag" else [field.dim]
    return [-1, field.dim] if field.dim > 1 else [-1]


def _fits(field: Field, shape: Sequence[int], rows: int) -> bool:
    """Return whether a shape is the field's; an empty one says that the value is missing."""
    if field.side == "request":
        return len(shape) == 1 and (field.kind == "bag" or shape[0] in (0, field.dim))
    return list(shape) in ([[rows, field.dim]] if field.dim > 1 else [[rows], [rows, 1]])


def _read(tensor: Tensor, count: int) -> Any:
    if tensor.raw is not None:
        return _texts(tensor, count) if tensor.datatype == "BYTES" else _array(tensor, count)
    flat = _flat(tensor.name, tensor.data, len(tensor.shape))
    if len(flat) != count:
        raise Refused(400, f"input '{tensor.name}' holds {len(flat)} values, its shape says {count}")
    if tensor.datatype == "BYTES":
        return [_text(tensor.name, value) for value in flat]
    kind = "q" if tensor.datatype in _INTS else "d"
    if bool in map(type, flat):  # which Python counts among the integers
        raise Refused(400, f"input '{tensor.name}' is {tensor.datatype}, a value is true or false")
    try:
        made: NDArray[Any] = np.frombuffer(array(kind, flat), dtype=kind)
    except (TypeError, OverflowError) as error:
        raise Refused(400, f"input '{tensor.name}' is {tensor.datatype}, a value is not: {error}") from None
    return made


def _array(tensor: Tensor, count: int) -> NDArray[Any]:
    kind, raw = np.dtype(_RAW[tensor.datatype]), tensor.raw or b""
    if len(raw) != count * kind.itemsize:
        want = f"{count * kind.itemsize} for {count} {tensor.datatype}"
        raise Refused(400, f"input '{tensor.name}' holds {len(raw)} bytes, {want} are expected")
    return np.frombuffer(raw, dtype=kind)


def _texts(tensor: Tensor, count: int) -> list[str]:
    """Return strings that each stand behind their length, 4 bytes little-endian."""
    raw, at = tensor.raw or b"", 0
    found: list[str] = []
    while at < len(raw) and len(found) <= count:
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise Refused(400, f"input '{tensor.name}': a string goes beyond the end of the {len(raw)} bytes")
        found.append(_text(tensor.name, raw[at + 4 : end]))
        at = end
    if len(found) != count:
        held = "more" if len(found) > count else len(found)
        raise Refused(400, f"input '{tensor.name}' holds {held} strings, its shape says {count}")
    return found


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise Refused(400, f"input '{name}' is BYTES, {value!r} is not a string")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused(400, f"input '{name}' holds a string that is not UTF-8") from None


def _flat(name: str, data: Any, depth: int) -> list[Any]:
    """Return a list's values; as the protocol allows, nested as the shape is, or flat."""
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise Refused(400, f"input '{name}' has no list of values in 'data'")
    flat = data if isinstance(data, list) else list(data)
    if depth > 1 and any(isinstance(row, list) for row in flat):
        if not all(isinstance(row, list) for row in flat):
            raise Refused(400, f"input '{name}' holds lists beside values")
        return [value for row in flat for value in _flat(name, row, depth - 1)]
    return flat
