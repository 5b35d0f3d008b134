"""Whether rows of one request agree: on their user, and on what is said to be the request's own.

A served request has one user and one value of every such field, and metrics of lists take its rows for one list.
Compared is what models see, with the request's first row; lists are not, since they would cost more than all the rest.
Memory: 9 bytes a request, and blocks of rows.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.schema import Field

_BLOCK = 1 << 20


def request_columns(fields: list[Field]) -> list[str]:
    """Return the row columns that rows of one request are to agree on: the user, and the request's fields but lists."""
    return ["user", *(f.name for f in fields if f.side == "request" and f.kind in ("categorical", "dense", "vector"))]


def disagreeing(rows: Path, columns: list[str]) -> tuple[int, dict[str, int]]:
    """Return how many requests there are, and how many have several values of a column; none where all agree.

    rows: the folder of an encoded log's columns, of which `request` numbers the requests from 0.
    """
    request = np.load(rows / "request.npy", mmap_mode="r")
    count = int(request.max()) + 1 if len(request) else 0
    first = np.full(count, -1, dtype=np.int64)
    for start in range(0, len(request), _BLOCK):
        mine = np.asarray(request[start : start + _BLOCK])
        new = np.flatnonzero(first[mine] < 0)[::-1]  # the last to be assigned stays, so the first row comes last
        first[mine[new]] = start + new
    found = {name: _mixed(np.load(rows / f"{name}.npy", mmap_mode="r"), request, first) for name in columns}
    return count, {name: n for name, n in found.items() if n}


def _mixed(values: NDArray[np.generic], request: NDArray[np.int64], first: NDArray[np.int64]) -> int:
    mixed = np.zeros(len(first), dtype=bool)
    step = max(1, _BLOCK // (values.shape[1] if values.ndim == 2 else 1))
    for start in range(0, len(request), step):
        mine = np.asarray(request[start : start + step])
        other = first[mine] != np.arange(start, start + len(mine))  # a row is as itself
        mine, here = mine[other], np.asarray(values[start : start + step])[other]
        unlike = here != values[first[mine]]
        mixed[mine[unlike if unlike.ndim == 1 else unlike.any(axis=1)]] = True
    return int(mixed.sum())
