"""Which scoring kernel this process uses: the native one in the best instruction set, or its NumPy twin.

RECSYS_KD_KERNEL asks for one: vnni (AVX-512 with integer dot products), avx512, avx2, baseline or numpy. Where the one
asked for can't be had, that is an error; where nothing was asked for, the best that is there is taken.
"""

import ctypes
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import OutsideError
from recsys_kd.runtime.abi import VERSION, bind, bind_direct
from recsys_kd.runtime.sources import instruction_sets, library_path

NAMES = ("vnni", "avx512", "avx2", "baseline", "numpy")
VARIABLE = "RECSYS_KD_KERNEL"
_LEVELS = {"vnni": 3, "avx512": 2, "avx2": 1, "baseline": 0}


class KernelUnavailable(OutsideError):
    """The kernel that RECSYS_KD_KERNEL asks for can't be had here."""


@dataclass(frozen=True)
class Library:
    """The native kernel in one instruction set."""

    name: str
    score: Any
    direct: Any
    int_keys: Any
    string_keys: Any
    in_place: Any

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities of logits [N], the same bits as the kernel's own."""
        out = np.array(logits, dtype=np.float32)
        self.in_place(out.ctypes.data, len(out))
        return out

    def keys(self, values: list[Any], *, strings: bool) -> NDArray[np.int64] | None:
        """Return the keys of a list of ids [N]; None where one of them is not of the kind."""
        out = np.empty(len(values), dtype=np.int64)
        read = (self.string_keys if strings else self.int_keys)(values, len(values), out.ctypes.data)
        return out if read == len(values) else None


@dataclass(frozen=True)
class Kernel:
    """What is used: a library, or None for NumPy and why."""

    library: Library | None
    detail: str


def _bind_keys(library: ctypes.PyDLL, name: str) -> Any:
    function = getattr(library, name)
    function.argtypes = (ctypes.py_object, ctypes.c_int64, ctypes.c_void_p)
    function.restype = ctypes.c_int64
    return function


def _bind_probabilities(library: ctypes.CDLL, name: str) -> Any:
    function = getattr(library, name)
    function.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    function.restype = None
    return function


@lru_cache
def load_library(path: Path, name: str) -> Library:
    """Return a built library's functions for one instruction set. Raises: OSError if it can't be loaded."""
    library = ctypes.CDLL(str(path))  # lets go of the interpreter's lock during a call
    if library.rk_abi() != VERSION:
        raise OSError(f"{path.name} has another interface")
    holding = ctypes.PyDLL(str(path))  # keeps it: these functions look into Python's lists
    return Library(
        name,
        bind(library, name),
        bind_direct(holding, name),
        _bind_keys(holding, f"rk_int_keys_{name}"),
        _bind_keys(holding, f"rk_string_keys_{name}"),
        _bind_probabilities(library, f"rk_probabilities_{name}"),
    )


def supported() -> tuple[str, ...]:
    """Return the instruction sets that the built library and this processor have, best first; () if it isn't built."""
    try:
        level = ctypes.CDLL(str(library_path())).rk_level()
    except OSError:
        return ()
    return tuple(name for name in instruction_sets() if _LEVELS[name] <= level)


@lru_cache
def _choose(wanted: str | None) -> Kernel:
    if wanted is not None and wanted not in NAMES:
        raise KernelUnavailable(f"{VARIABLE}={wanted}: no such kernel; give one of {', '.join(NAMES)}")
    if wanted == "numpy":
        return Kernel(None, f"numpy, as {VARIABLE} asks")
    here = supported()
    name = wanted or (here[0] if here else None)
    if name in here:
        return Kernel(load_library(library_path(), name), f"native, {name}")
    if wanted is None:
        return Kernel(None, "numpy: the native kernel is not built; run `python -m recsys_kd.runtime.build`")
    had = ", ".join(here) if here else "none is built; run `python -m recsys_kd.runtime.build`"
    raise KernelUnavailable(f"{VARIABLE}={wanted}: not among this machine's native kernels ({had})")


def kernel() -> Kernel:
    """Return the kernel to use. Raises: KernelUnavailable."""
    return _choose(os.environ.get(VARIABLE) or None)
