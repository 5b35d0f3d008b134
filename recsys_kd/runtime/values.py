"""Single values of a request, raw -> keys and numbers, and what is said of those that are neither."""

import reprlib
from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.ids import hash_string
from recsys_kd.schema import Field

Floats = NDArray[np.float32]
Keys = NDArray[np.int64]
MISSING = int(np.iinfo(np.int64).min)
LARGEST = 1e9
"""The largest number a model reads, standardized (native/abi.h: RK_LARGEST).

Of n rows none is more than sqrt(n) standard deviations from their mean, so none that was learned from is as large; and
float32 holds the squares of sums of such numbers, but not of 1e30: these would give NaN instead of a score.
"""
_SHOWN = 80
"""Characters of a value in a message: a refusal is never as long as a hostile request."""


class BadRequest(InputError):
    """A request does not hold what the model's schema asks for."""


def shown(value: Any) -> str:
    """Return a value in few characters, whatever it is."""
    try:
        text = reprlib.repr(value)
    except Exception:  # noqa: BLE001 - an odd object's own, or an integer of too many digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def whole(name: str, value: Any) -> int:
    """Return a whole number. Raises: BadRequest for anything else."""
    try:
        return index(value)
    except Exception:  # noqa: BLE001 - an odd object's own
        raise BadRequest(f"{name}: a whole number is expected, got {shown(value)}") from None


def is_list(values: Any) -> bool:
    """Return whether values are a list of some kind; texts and bytes are none."""
    return isinstance(values, list | np.ndarray | tuple) or (
        isinstance(values, Sequence) and not isinstance(values, str | bytes)
    )


def refuse_hidden(field: Field, values: Any) -> None:
    """Raise BadRequest for a masked array that hides values: NumPy hands them out as if they were there."""
    if isinstance(values, np.ndarray) and type(values) is not np.ndarray and np.any(getattr(values, "mask", False)):
        text = "a masked array that hides values is given; give `compressed()`, or `filled` with what they stand for"
        raise BadRequest(f"field '{field.name}': {text}")


def int_array(field: Field, values: NDArray[Any]) -> Keys:
    """Return an array of integers as keys. Raises: BadRequest for one beyond 64 bits with a sign."""
    if values.dtype == np.uint64 and len(values) and int(values.max()) >= 2**63:
        raise BadRequest(f"field '{field.name}': {int(values.max())} does not fit in 64 bits; ids are int64")
    return np.ascontiguousarray(values, dtype=np.int64)


def key_of(field: Field, strings: bool, value: Any) -> int:
    """Return the key of one raw id. Raises: BadRequest if it is of another kind than the field's."""
    if value is None:
        return MISSING
    if strings:
        if not isinstance(value, str):
            raise BadRequest(f"field '{field.name}': ids are strings in this model, got {shown(value)}")
        try:
            return hash_string(value)
        except UnicodeEncodeError:
            text = f"{shown(value)} is not valid Unicode; replace its lone surrogates"
            raise BadRequest(f"field '{field.name}': {text}") from None
    try:
        key = index(value)
    except Exception:  # noqa: BLE001 - an odd object's own
        key = None
    if key is None or isinstance(value, bool):
        raise BadRequest(f"field '{field.name}': ids are integers in this model, got {shown(value)}")
    if not -(2**63) <= key < 2**63:
        raise BadRequest(f"field '{field.name}': {shown(key)} does not fit in 64 bits; ids are int64")
    return key


def _filled(field: Field, value: Any, rows: int) -> Any:
    """Return one entry per row, missing ones replaced; `value` as it is where it can't be read."""
    gap = np.full(field.dim, 0.0 if field.kind == "vector" else field.mean, dtype=np.float32)
    try:
        each = [None] * rows if value is None else value
        found = [gap if v is None else plain(np.asarray(v)).reshape(field.dim) for v in each]
    except (TypeError, ValueError, OverflowError):
        return value
    return [v if np.isfinite(v).all() else gap for v in found]


def numbers(field: Field, value: Any, rows: int) -> Floats:
    """Return a field's numbers, float32 [rows, dim]; missing ones filled where the field accepts that.

    Whether they are finite, `standardized` checks. Raises: BadRequest.
    """
    for each in value if type(value) is list and (rows == 1 or field.dim > 1) else [value]:
        refuse_hidden(field, each)
    if field.missing == "accept":
        value = _filled(field, value, rows)
    try:
        array = plain(np.asarray(value)).reshape(rows, field.dim)
    except (TypeError, ValueError, OverflowError):
        shape = f"{field.dim} numbers" if field.dim > 1 else "a number"
        text = f"{shape} per row expected for {rows} row(s), got {shown(value)}"
        raise BadRequest(f"field '{field.name}': {text}") from None
    return array


def plain(values: NDArray[Any]) -> Floats:
    """Return numbers as float32; TypeError or ValueError for what only looks like some: texts, dates, complex."""
    if values.dtype.kind not in "iufbO" or (values.dtype.kind == "O" and _has_text(values)):
        raise TypeError(f"{values.dtype} are no numbers")
    with np.errstate(over="ignore"):  # what float32 can't hold is refused as infinite
        return values.astype(np.float32, copy=False)


def _has_text(values: NDArray[Any]) -> bool:
    return any(isinstance(value, str | bytes) for value in values.ravel().tolist())


def largest(values: Floats) -> float:
    """Return the largest magnitude; NaN where there is one, 0 of nothing."""
    return float(np.abs(values).max(initial=0.0))


def standardized(field: Field, raw: Floats) -> Floats:
    """Return numbers as the model reads them, a vector as it is. Raises: BadRequest for NaN and what is too large."""
    if field.kind == "vector":
        found = np.ascontiguousarray(raw)
    else:
        with np.errstate(over="ignore"):  # what float32 can't hold is beyond the largest, too
            found = (raw - np.float32(field.mean)) / np.float32(field.std)
    if not largest(found) <= LARGEST:
        raise BadRequest(f"field '{field.name}': {_unfit(field, raw, found)}")
    return found


def _unfit(field: Field, raw: Floats, found: Floats) -> str:
    if not np.isfinite(raw).all():
        return "missing, NaN or infinite values can't be scored; give finite numbers, or train with `missing: accept`"
    worst = raw.ravel()[int(np.abs(found).argmax())]
    if field.kind == "vector":
        return f"{worst:.6g} is too large, a number of a vector may be {LARGEST:.0e}; give it in the log's unit"
    return (
        f"{worst:.6g} is over {LARGEST:.0e} standard deviations ({field.std:.6g}) from the log's mean "
        f"({field.mean:.6g}); give it in the log's unit"
    )
