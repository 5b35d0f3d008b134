"""The kernel's structs (native/abi.h), field by field, and pointers into NumPy arrays."""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p, py_object
from typing import Any

from numpy.typing import NDArray

VERSION = 5
KEY, BAG, NUMBERS, ITEM, CODES = range(5)
"""What a term reads (`rk_source`)."""


class Index(Structure):
    """`rk_index`."""

    _fields_ = (
        *((n, c_int64) for n in ("base", "count", "buckets")),
        *((n, c_int32) for n in ("bits", "kept", "top", "width")),
        *((n, c_void_p) for n in ("starts", "rests")),
    )


class Table(Structure):
    """`rk_table`."""

    _fields_ = (
        *(("data", c_void_p), ("rows", c_int64), ("dim", c_int32), ("bits", c_int32), ("index", Index)),
        *(("more_rows", c_void_p), ("more", c_int32), ("more_bytes", c_int32)),
    )


class Term(Structure):
    """`rk_term`."""

    _fields_ = (
        *((n, c_int32) for n in ("source", "slot", "table", "dim", "square", "code_bytes")),
        *((n, c_void_p) for n in ("codes", "matrix", "mean", "pairs", "grid")),
    )


class Layer(Structure):
    """`rk_layer`."""

    _fields_ = (
        *((n, c_int32) for n in ("inputs", "outputs")),
        *((n, c_void_p) for n in ("weight", "bias", "pairs", "scale")),
    )


class Model(Structure):
    """`rk_model`."""

    _fields_ = (
        *((n, c_int32) for n in ("first", "width", "tables", "request_terms", "candidate_terms", "layers")),
        *((n, c_int32) for n in ("keys", "bags", "numbers", "inputs", "squares", "whole", "rotated")),
        ("table", POINTER(Table)),
        ("request_term", POINTER(Term)),
        ("candidate_term", POINTER(Term)),
        ("layer", POINTER(Layer)),
        *((n, c_void_p) for n in ("base", "rotation", "matrix", "constant", "weight")),
        ("slope", c_float),
        ("offset", c_float),
    )


INT, STRING, INTS, STRINGS, NUMBER, VECTOR = range(6)
"""How a field of a raw request is read (`rk_kind`)."""
DONE, NO_MEMORY, UNUSUAL, MISSED = range(4)
"""What a function of `rk_direct` returns."""


class Field(Structure):
    """`rk_field`."""

    _fields_ = (("name", py_object), ("kind", c_int32), ("length", c_int32), ("mean", c_float), ("std", c_float))


class Entry(Structure):
    """`rk_entry`."""

    _fields_ = (("model", POINTER(Model)), ("field", POINTER(Field)), ("fields", c_int32), ("strings", c_int32))


def address(array: NDArray[Any]) -> int:
    """Return where an array's first value lies; the array must outlive the use, and lie without gaps."""
    if not array.flags.c_contiguous:
        raise ValueError("an array with gaps was to be handed to the kernel")
    return int(array.ctypes.data)


def struct_array(kind: type[Structure], items: list[Any]) -> Any:
    """Return a ctypes array of structs, with room for one at least, so that it has an address."""
    return (kind * max(1, len(items)))(*items)


def bind(library: ctypes.CDLL, name: str) -> Any:
    """Return `rk_score` of an instruction set, with its argument types."""
    function = getattr(library, f"rk_score_{name}")
    function.argtypes = (POINTER(Model), c_int64, *(c_void_p,) * 8, c_int, c_void_p, c_void_p)
    function.restype = c_int
    return function


def bind_direct(library: ctypes.PyDLL, name: str) -> Any:
    """Return `rk_direct` of an instruction set: address of an `Entry` -> a function, see native/direct.cpp."""
    function = getattr(library, f"rk_direct_{name}")
    function.argtypes = (py_object,)
    function.restype = py_object
    return function
