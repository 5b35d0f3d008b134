"""How many rows of which table fit a byte budget.

Every row has a cost (its bytes on disk, index key included) and a worth (what the scores would move if it were pruned);
rows are kept by worth per byte until the budget is full. What is not kept shares its table's fallback row.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.tables import OVERHEAD

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class BadBudget(InputError):
    """The byte budget can't be read, or can't be met."""


def parse_bytes(text: str | int) -> int:
    """Return a number of bytes from `20MB`, `1.5 GiB` or a plain number. Raises: BadBudget."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2].upper() not in UNITS:
        raise BadBudget(f"compress.bytes: '{text}' is not a size; write a number of bytes, or such as 20MB or 1.5GiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


@dataclass(frozen=True)
class TableCost:
    """One table before pruning: `worth` [rows - 1] of the rows that have a key, values per row, bytes per key."""

    name: str
    worth: NDArray[np.float64]
    dim: int
    key_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes that one more kept row costs."""
        return self.dim + OVERHEAD + self.key_bytes


@dataclass(frozen=True)
class CompressionPlan:
    """Rows kept per table (sorted row numbers, fallback not counted) and what the artifact should weigh."""

    keep: Mapping[str, NDArray[np.int64]]
    fold: Literal["item", "field"]
    predicted_bytes: int
    budget_bytes: int | None

    def summary(self) -> dict[str, Any]:
        """Return the plan as stored in manifests: counts, not row numbers."""
        return {
            "fold": self.fold,
            "rows": {name: len(rows) for name, rows in self.keep.items()},
            "predicted_bytes": self.predicted_bytes,
            "budget_bytes": self.budget_bytes,
        }


def smallest(costs: list[TableCost], fixed_bytes: int) -> int:
    """Return the bytes of an artifact whose tables keep nothing but their fallback rows."""
    return fixed_bytes + sum(c.dim + OVERHEAD for c in costs)


def plan_for_bytes(
    costs: list[TableCost], fixed_bytes: int, budget: int, fold: Literal["item", "field"]
) -> CompressionPlan:
    """Return the plan of most worth kept with at most `budget` bytes; `fixed_bytes` is all that is not rows.

    Raises: BadBudget where not even the fallback rows fit, naming the smallest budget that can be met.
    """
    spent = smallest(costs, fixed_bytes)
    if spent > budget:
        raise BadBudget(
            f"compress: a budget of {budget:,} bytes can't be met: {spent:,} bytes are needed before any id has a row "
            "of its own; raise `compress.bytes` (or lower `compress.ratio`), or make `student.hidden` smaller"
        )
    share = np.concatenate([c.worth / c.row_bytes for c in costs] or [np.zeros(0)])
    bytes_of = np.concatenate([np.full(len(c.worth), c.row_bytes) for c in costs] or [np.zeros(0, dtype=int)])
    order = np.argsort(-share, kind="stable")
    taken = order[np.cumsum(bytes_of[order]) <= budget - spent]
    chosen = np.zeros(len(share), dtype=bool)
    chosen[taken] = True
    keep, start = {}, 0
    for cost in costs:
        keep[cost.name] = np.flatnonzero(chosen[start : start + len(cost.worth)])
        start += len(cost.worth)
    predicted = spent + int(bytes_of[taken].sum())
    return CompressionPlan(keep, fold, predicted, budget)


def plan_for_fraction(
    costs: list[TableCost], fixed_bytes: int, fraction: float, fold: Literal["item", "field"]
) -> CompressionPlan:
    """Return the plan that keeps `fraction` of every table's rows, those worth most."""
    keep = {}
    for cost in costs:
        count = int(np.ceil(fraction * len(cost.worth)))
        keep[cost.name] = np.sort(np.argsort(-cost.worth, kind="stable")[:count])
    rows = sum(len(keep[c.name]) * c.row_bytes for c in costs)
    return CompressionPlan(keep, fold, smallest(costs, fixed_bytes) + rows, None)
