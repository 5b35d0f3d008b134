"""Quantize a float table on disk that need not fit in memory: read a few megabytes, code them, write them, go on.

In: a `.npy` file, float32 [rows, dim] in C order, the last row the fallback. Out: a safetensors file with one tensor,
`table` uint8 [rows, codes + 2], rows as artifacts hold them (`recsys_kd.tables.CodedRows`). Memory: two buffers of
16 MB, whatever the table's size.
"""

import json
import os
import uuid
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path

import numpy as np

from recsys_kd.compress.quantize import NonFiniteTable, quantize_rows
from recsys_kd.errors import InputError, OutsideError
from recsys_kd.progress import SILENT, Progress
from recsys_kd.tables import OVERHEAD, Bits, code_bytes

CHUNK = 16 << 20
_ALIGN = 64


class BadTable(InputError):
    """A file is no float32 table."""


class TableUnwritable(OutsideError):
    """The coded table can't be written."""


@dataclass(frozen=True)
class Streamed:
    """A coded table on disk: rows, numbers per row, and bytes before and after."""

    rows: int
    dim: int
    bytes_before: int
    bytes_after: int


def quantize_file(source: Path, target: Path, bits: Bits = 8, progress: Progress = SILENT) -> Streamed:
    """Write the coded rows of a float32 `.npy` table to `target`, whole or not at all.

    Raises: BadTable, NonFiniteTable naming the rows, TableUnwritable.
    """
    try:
        file = source.open("rb")
    except OSError as error:
        raise BadTable(f"{source}: can't be read ({error.strerror}); give a float32 .npy file") from None
    with file:
        rows, dim = _shape(file, source)
        building = target.with_name(f".building-{uuid.uuid4().hex}")
        try:
            with building.open("xb") as out:
                _stream(file, out, (rows, dim), bits, source, progress)
                out.flush()
                os.fsync(out.fileno())
            building.replace(target)
        except OSError as error:
            raise TableUnwritable(f"{target}: can't be written ({error.strerror}); free space") from None
        finally:
            building.unlink(missing_ok=True)
    return Streamed(rows, dim, source.stat().st_size, target.stat().st_size)


def _shape(file: BufferedReader, source: Path) -> tuple[int, int]:
    """Return rows and numbers per row, the file standing at its first number. Raises: BadTable."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, kind = read(file)
    except ValueError as error:
        raise BadTable(f"{source}: not a .npy file ({error}); save the table with numpy.save") from None
    if kind != np.dtype("<f4") or fortran or len(shape) != 2 or not shape[1]:
        raise BadTable(f"{source}: holds {kind} {shape}; a table is float32 [rows, dim] in C order")
    left = source.stat().st_size - file.tell()
    if left != shape[0] * shape[1] * 4:
        raise BadTable(
            f"{source}: {left:,} bytes follow the header, {shape} needs {shape[0] * shape[1] * 4:,}; cut off?"
        )
    return int(shape[0]), int(shape[1])


def _stream(
    file: BufferedReader, out: BufferedWriter, shape: tuple[int, int], bits: Bits, source: Path, progress: Progress
) -> None:
    rows, dim = shape
    out.write(_header(rows, code_bytes(dim, bits) + OVERHEAD))
    step = max(1, CHUNK // (4 * dim))
    room = np.empty((min(step, rows), dim), np.float32)
    with progress.task(f"quantize {source.name}", rows) as task:
        for start in range(0, rows, step):
            part = room[: min(step, rows - start)]
            if file.readinto(part.data.cast("B")) != part.nbytes:
                raise BadTable(f"{source}: ends in row {start} or after it; it was cut off while it was read")
            try:
                out.write(quantize_rows(part, bits).data.data.cast("B"))
            except NonFiniteTable as error:
                raise NonFiniteTable(f"{source}, rows {start} to {start + len(part) - 1}: {error}") from None
            task.advance(len(part))


def _header(rows: int, width: int) -> bytes:
    entry = {"dtype": "U8", "shape": [rows, width], "data_offsets": [0, rows * width]}
    text = json.dumps({"table": entry}, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-(len(text) + 8) % _ALIGN)
    return len(text).to_bytes(8, "little") + text
