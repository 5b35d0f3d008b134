"""A student's tables from its teacher's: the directions in which the teacher's embeddings have most of their squares.

One rotation for all tables (principal components about zero, rows by their traffic), since what two fields say of each
other is the product of their embeddings: at the teacher's own width all products, and so the teacher's whole pairwise
term, are kept; at a smaller width those that weigh most.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def projected(
    tables: Mapping[str, Floats], traffic: Mapping[str, NDArray[np.float64]], width: int, scale: float = 1.0
) -> dict[str, Floats]:
    """Return scale * E V for every table E [rows, W], V [W, min(W, width)] the leading principal directions.

    traffic: how much each row of a table counts [rows].
    """
    moment = sum(_moment(table, traffic[name]) for name, table in tables.items())
    _, vectors = np.linalg.eigh(np.asarray(moment))
    leading = vectors[:, ::-1][:, :width]
    return {name: (scale * (table.astype(np.float64) @ leading)).astype(np.float32) for name, table in tables.items()}


def _moment(table: Floats, traffic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the traffic-weighted sum of e e^T [W, W]."""
    rows = table.astype(np.float64)
    moment: NDArray[np.float64] = (rows * traffic[:, None]).T @ rows
    return moment
