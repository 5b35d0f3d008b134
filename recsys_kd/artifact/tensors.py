"""The safetensors format, read from bytes that were already verified and mapped.

File: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, then the data without gaps.
The safetensors library opens by path and accepts flipped bits and NaN; here the bytes that were hashed are the bytes
that are used. Source: https://github.com/huggingface/safetensors, "Format".
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
MAX_HEADER = 1 << 20
_DTYPES = {
    "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "F16": np.float16,
    "F32": np.float32,
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_ALIGN = 64


class BadTensors(ValueError):
    """The bytes are not a file of this format."""


def dump(tensors: Mapping[str, Array]) -> bytes:
    """Return the file's bytes; tensors lie in name order, the data starts on a multiple of 64 bytes."""
    header: dict[str, Any] = {}
    at = 0
    for name in sorted(tensors):
        array = tensors[name]
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-(len(text) + 8) % _ALIGN)
    body = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    return len(text).to_bytes(8, "little") + text + body


def _tensor(name: str, entry: Any, start: int, data: memoryview) -> tuple[Array, int]:
    """Return one tensor, which must begin at `start`, and where it ends."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadTensors(f"tensor '{name}' has other keys than dtype, shape and data_offsets")
    kind, shape, offsets = _DTYPES.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if kind is None:
        raise BadTensors(f"tensor '{name}' has dtype {entry['dtype']!r}, known are {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**40 for n in shape) or len(shape) > 2:
        raise BadTensors(f"tensor '{name}' has shape {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
        raise BadTensors(f"tensor '{name}' has data_offsets {offsets!r}")
    size = int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
    if offsets[0] != start or offsets[1] != start + size or offsets[1] > len(data):
        raise BadTensors(
            f"tensor '{name}' lies at {offsets}, expected [{start}, {start + size}] within {len(data)} bytes"
        )
    return np.frombuffer(data[start : start + size], dtype=kind).reshape(shape), start + size


def load(buffer: memoryview) -> dict[str, Array]:
    """Return read-only views of all tensors. Raises: BadTensors for anything out of place."""
    if len(buffer) < 8:
        raise BadTensors(f"{len(buffer)} bytes are too short for a header")
    length = int.from_bytes(buffer[:8], "little")
    if length > MAX_HEADER or 8 + length > len(buffer):
        raise BadTensors(f"header length {length} exceeds the file or {MAX_HEADER}")
    try:
        header = json.loads(bytes(buffer[8 : 8 + length]))
    except ValueError as error:
        raise BadTensors(f"header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise BadTensors("header is not an object")
    data, at, tensors = buffer[8 + length :], 0, {}
    for name in sorted(header):
        tensors[name], at = _tensor(name, header[name], at, data)
    if at != len(data):
        raise BadTensors(f"{len(data) - at} bytes follow the last tensor")
    return tensors
