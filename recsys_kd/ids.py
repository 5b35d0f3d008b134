"""Raw ids as signed 64-bit keys.

int64 ids are their own key. A string is known by the first 8 bytes of its BLAKE2b hash: keyed structures then hold
fixed-width integers only (an accidental collision among 1M ids has odds of 3e-8). An artifact keeps fewer bits of it
(see `index`): who tries some 2^28 names finds one that is served with another's row, which he could have asked for by
its own name.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def hash_string(value: str) -> int:
    """Return the key of a string id: first 8 bytes of BLAKE2b-64 of its UTF-8 form, little-endian, signed."""
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little", signed=True)


def hash_strings(values: Iterable[str]) -> NDArray[np.int64]:
    """Return the keys of many string ids, int64 [N]."""
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(v.encode(), digest_size=8).digest() for v in values])
    return np.frombuffer(digests, dtype="<i8").astype(np.int64, copy=False)


def mix(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one 64-bit hash per row of several int64 columns [N] (splitmix64 finalizer, order-sensitive)."""
    state = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        state += column.view(np.uint64)
        state += np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(30)
        state *= np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(27)
        state *= np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state.view(np.int64)
