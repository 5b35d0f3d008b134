"""Files of one log, and what they say together of a column's type.

A file without rows says nothing, and nor does a column without a value in it: pandas writes one that held nothing but
None as `null`, or as float64 where the others are texts or integers. Such a column is read as nulls of the type that
the other files have; any other disagreement is an error that names both files.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_kd.data.convert import is_text
from recsys_kd.data.files import BadFile, open_parquet, read_batches
from recsys_kd.errors import InputError

DOUBLE = "pandas writes integers as double where one is missing; make the column `Int64` before writing"


class SchemaDrift(InputError):
    """Two files of one log disagree about a column."""


class RepeatedColumn(InputError):
    """A file has two columns of the name that is wanted."""


@dataclass(frozen=True)
class LogFile:
    """A file with rows, and its schema with the columns that its folders name."""

    path: Path
    schema: pa.Schema


def settle(files: list[LogFile], columns: Iterable[str]) -> dict[str, pa.DataType]:
    """Return the type of every one of `columns`, from the first file that says it; widths may differ.

    A column that the first file does not have is left out. Raises: SchemaDrift, RepeatedColumn, BadFile.
    """
    first, found = files[0], {}
    for column in dict.fromkeys(columns):
        if column not in first.schema.names:
            continue
        for file in files:
            if column not in file.schema.names:
                raise SchemaDrift(
                    f"{file.path}: no column '{column}', which {first.path} has; rewrite the file or leave it out"
                )
            once(column, file.schema, file.path)
        found[column] = _settled([(file.path, file.schema.field(column).type) for file in files], column)
    return found


def once(column: str, schema: pa.Schema, path: Path) -> None:
    """Raise RepeatedColumn if a file has several columns of a name."""
    if schema.names.count(column) > 1:
        raise RepeatedColumn(f"{path}: has {schema.names.count(column)} columns called '{column}'; rename all but one")


def _settled(types: list[tuple[Path, pa.DataType]], column: str) -> pa.DataType:
    told = [(path, kind) for path, kind in types if not _says_nothing(kind)]
    if len({family(kind) for _, kind in told}) > 1:
        told = [(path, kind) for path, kind in told if not (_is_float(kind) and _holds_nothing(path, column))]
    if not told:
        return types[0][1]
    first, want = told[0]
    for path, got in told[1:]:
        if family(got) != family(want):
            advice = "rewrite one of them so that they agree"
            if {family(got), family(want)} == {"float", "integer"}:
                advice += f" ({DOUBLE})"
            raise SchemaDrift(f"{path}: column '{column}' is {got}, in {first} it is {want}; {advice}")
    return want


def as_wanted(array: pa.Array, kind: pa.DataType, path: Path, column: str) -> pa.Array:
    """Return a batch's column without values, of a type of another family, as nulls of type `kind`.

    Raises: SchemaDrift if it holds a value, which `settle` has ruled out unless the file has been replaced since.
    """
    if not _is_empty(array):
        raise SchemaDrift(f"{path}: column '{column}' is {array.type} now, and {kind} was wanted; run again")
    inner = value_type(kind)
    if inner is None or value_type(array.type) is None:
        return pa.nulls(len(array), kind)
    return pa.array([cell and [None] * len(cell) for cell in array.to_pylist()], pa.list_(inner))


def _says_nothing(kind: pa.DataType) -> bool:
    """Return whether no value can be of this type: null, lists of null, a dictionary of null."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else value_type(kind)
    return bool(pa.types.is_null(inner if inner is not None else kind))


def _is_float(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(value_type(kind) or kind))


def _holds_nothing(path: Path, column: str) -> bool:
    """Return whether a column of floats, or of lists of them, has no value; it is read once more for that."""
    file = open_parquet(path)
    if column not in file.schema_arrow.names:  # named by a folder
        return False
    try:
        return all(_is_empty(batch.column(0)) for batch in read_batches(file, path, [column]))
    except BadFile:  # the scan says so, or excludes the file
        return True


def _is_empty(array: pa.Array) -> bool:
    """Return whether every value is null or NaN."""
    flat = array.flatten() if value_type(array.type) is not None else array
    if flat.null_count == len(flat):
        return True
    return pa.types.is_floating(flat.type) and bool(np.asarray(pc.is_null(flat, nan_is_null=True)).all())


def value_type(kind: pa.DataType) -> pa.DataType | None:
    """Return what a list's values are, None for what is no list."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return kind.value_type
    return None


def widest(kind: pa.DataType) -> pa.DataType:
    """Return the type that holds every value of `kind`'s family."""
    inner = value_type(kind)
    if inner is not None:
        return pa.list_(widest(inner))
    if is_text(kind):
        return pa.large_string()
    if pa.types.is_dictionary(kind):
        return widest(kind.value_type)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return pa.int64()
    return pa.float64() if pa.types.is_floating(kind) else kind


def family(kind: pa.DataType) -> str:
    """Return what files must agree on. uint64 stands alone: beyond 2^63 its ids would be taken for negative int64."""
    inner = value_type(kind)
    if inner is not None:
        return f"list of {family(inner)}"
    if is_text(kind):
        return "text"
    if pa.types.is_dictionary(kind):
        return family(kind.value_type)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    return str(kind)
