"""Columns on disk while a log is encoded: appended batch by batch, then mapped."""

from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import DTypeLike, NDArray

_CACHED = 1 << 15
"""Keys that stay in a core's own cache while others are looked up among them."""


class ColumnFiles:
    """Raw columns growing on disk, one file each; rows are fixed-width NumPy values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.files: dict[str, IO[bytes]] = {}
        self.kinds: dict[str, tuple[np.dtype[np.generic], int]] = {}

    def append(self, name: str, values: NDArray[np.generic]) -> None:
        """Add values [n] or [n, width] to a column."""
        if name not in self.files:
            self.files[name] = (self.folder / f"{name}.raw").open("wb")
            self.kinds[name] = (values.dtype, values.shape[1] if values.ndim == 2 else 0)
        self.files[name].write(np.ascontiguousarray(values).data)

    def close(self) -> None:
        """End writing."""
        for file in self.files.values():
            file.close()

    def read(self, name: str) -> NDArray[np.generic]:
        """Return a whole column, memory-mapped."""
        dtype, width = self.kinds[name]
        path = self.folder / f"{name}.raw"
        if path.stat().st_size == 0:
            return np.zeros((0, width) if width else 0, dtype=dtype)
        raw = np.memmap(path, dtype=dtype, mode="r")
        return raw.reshape(-1, width) if width else raw


def create(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Return a new .npy file mapped for writing (an empty array where there is nothing to map)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if 0 in shape:
        np.save(path, np.zeros(shape, dtype=dtype))
        return np.zeros(shape, dtype=dtype)
    mapped: NDArray[np.generic] = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    return mapped


def _places(keys: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return np.searchsorted(known, keys), looked up in the order of the keys where `known` outgrows a cache.

    Measured on 1M random keys: 170 ms fall to 76 among 200k, 370 to 80 among 1M and 670 to 88 among 4M.
    """
    if len(known) < _CACHED:
        return np.searchsorted(known, keys)
    order, at = np.argsort(keys), np.empty(len(keys), dtype=np.int64)
    at[order] = np.searchsorted(known, keys[order])
    return at


def rows_of(keys: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each key's row among the sorted `known` keys; len(known), the fallback, where it is none of them."""
    if len(known) == 0:
        return np.zeros(len(keys), dtype=np.int64)
    at = _places(keys, known)
    at[at == len(known)] = 0
    return np.where(known[at] == keys, at, len(known))
