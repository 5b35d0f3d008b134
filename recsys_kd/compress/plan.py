"""How many rows of which table, how many coordinates per row and how many bits each, fit a byte budget.

Every row has a cost (its bytes on disk, index key included) and a worth (the loss that it saves, see `coding`).
Narrower rows lose a little on every row, fewer rows lose much on some: both are bought at one price per byte
(`pricing`). What is not kept shares its table's fallback row.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.coding import CodedTable
from recsys_kd.compress.pricing import Market, everything
from recsys_kd.errors import InputError
from recsys_kd.tables import Bits, RowCode

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class BadBudget(InputError):
    """The byte budget can't be read, or can't be met."""


class BudgetTooSmall(BadBudget):
    """So many bytes are needed before any id has a row of its own, and the budget is less.

    told: the budget in words, as it was asked for; least: "at least " where more may be needed.
    """

    def __init__(
        self,
        needed: int,
        budget: int,
        told: str = "",
        advice: str = "raise `compress.bytes` (or lower `compress.ratio`)",
        least: str = "",
    ) -> None:
        super().__init__(
            f"{told or f'compress: a budget of {budget:,} bytes'} can't be met: {least}{needed:,} bytes are needed "
            f"before any id has a row of its own; {advice}, or make `student.hidden` smaller"
        )
        self.needed, self.budget = needed, budget


def parse_bytes(text: str | int, name: str = "compress.bytes") -> int:
    """Return a number of bytes from `20MB`, `1.5 GiB` or a plain number. Raises: BadBudget, about key `name`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2].upper() not in UNITS:
        raise BadBudget(f"{name}: '{text}' is not a size; write a number of bytes, or such as 20MB or 1.5GiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


_NONE = np.zeros(0, dtype=np.int64)
Keeps = Mapping[str, NDArray[np.int64]]
"""Rows kept, sorted, by table."""


@dataclass(frozen=True)
class TablePlan:
    """Rows kept (sorted row numbers, fallback not counted) and how they are written; those of them that are hot."""

    keep: NDArray[np.int64]
    code: RowCode
    hot: NDArray[np.int64] = field(default_factory=lambda: _NONE)


@dataclass(frozen=True)
class CompressionPlan:
    """What stays of every table, what the artifact should weigh, and the loss that the plan expects to cost.

    predicted_loss: nats per row of the days to come, second-order estimate over the tables' lookups; a pruned row
    counts from its table's mean.
    """

    tables: Mapping[str, TablePlan]
    fold: Literal["item", "field"]
    predicted_bytes: int
    predicted_loss: float
    budget_bytes: int | None

    def summary(self) -> dict[str, Any]:
        """Return the plan as stored in manifests: counts, not row numbers."""
        plain: dict[str, Any] = {
            "fold": self.fold,
            "rows": {name: len(table.keep) for name, table in self.tables.items()},
            "rank": {name: table.code.rank for name, table in self.tables.items()},
            "bits": {name: table.code.bits for name, table in self.tables.items()},
            "predicted_bytes": self.predicted_bytes,
            "predicted_loss": round(self.predicted_loss, 9),
            "budget_bytes": self.budget_bytes,
        }
        hot = {name: (table, table.code.more) for name, table in self.tables.items() if table.code.more}
        if hot:
            plain["hot_rows"] = {name: len(table.hot) for name, (table, _) in hot.items()}
            plain["hot_rank"] = {name: more.rank for name, (_, more) in hot.items()}
            plain["hot_bits"] = {name: more.bits for name, (_, more) in hot.items()}
        return plain


_BITS: tuple[Bits, ...] = (4, 8)
SMALLEST = RowCode(1, 4)
"""The code of the shortest rows there are."""
_WORTH_A_TIER, _NEGLIGIBLE = 0.02, 1e-4
"""Share of what a plan of one tier loses that a second one must save: it costs arithmetic per candidate;
and share of all nats below which nothing is worth it."""


def smallest(tables: Sequence[CodedTable], fixed_bytes: int) -> int:
    """Return the bytes of an artifact whose tables keep nothing but a fallback row of one coordinate at 4 bits."""
    empty = np.zeros(1, dtype=np.int64)
    return fixed_bytes + sum(t.fixed_bytes(SMALLEST) + int(t.bytes_for(empty, SMALLEST)[0]) for t in tables)


def nothing_kept(tables: Sequence[CodedTable], fold: Literal["item", "field"]) -> CompressionPlan:
    """Return the plan of `smallest`."""
    none = np.zeros(0, dtype=np.int64)
    return CompressionPlan({t.name: TablePlan(none, SMALLEST) for t in tables}, fold, 0, _lost(tables, 0.0), None)


def plan_for_bytes(
    tables: Sequence[CodedTable],
    fixed_bytes: int,
    budget: int,
    fold: Literal["item", "field"],
    bits: Sequence[Bits] = _BITS,
    tiers: bool = True,
    market: Market | None = None,
) -> CompressionPlan:
    """Return the plan that loses least with at most `budget` bytes; `fixed_bytes` is all that is not tables.

    `market`: of the same tables, where several plans are made.

    Rows kept, coordinates per row, their bits and what hot rows have beside are traded at one price per byte
    (Lagrangian), then the budget is filled up, and single steps of every table's code are tried as long as they help.
    Raises: BadBudget where not even the fallback rows fit, naming the smallest budget that can be met.
    """
    if smallest(tables, fixed_bytes) > budget:
        raise BudgetTooSmall(smallest(tables, fixed_bytes), budget)
    left = float(budget - fixed_bytes)
    market = market or Market(tables)
    codes, best = market.searched(left, bits, False)
    if tiers and any(table.refinable for table in tables):
        others, found = market.searched(left, bits, True)
        left_out = market.everything - best.saved
        if found.saved - best.saved > max(_WORTH_A_TIER * left_out, _NEGLIGIBLE * market.everything):
            codes, best = others, found
    plans = {name: TablePlan(keep, codes[name], best.hot.get(name, _NONE)) for name, keep in best.keep.items()}
    return CompressionPlan(plans, fold, fixed_bytes + best.bytes, max(market.everything - best.saved, 0.0), budget)


def _lost(tables: Sequence[CodedTable], saved: float) -> float:
    return max(everything(tables) - saved, 0.0)


def worth_most(
    tables: Sequence[CodedTable], fraction: float, bits: Sequence[Bits] = _BITS, by: Literal["loss", "lookups"] = "loss"
) -> Keeps:
    """Return `fraction` of all tables' rows, those that save most loss or, `by` lookups, are looked up most.

    The same fraction of every table would cost more: on a synthetic shop 0.022 AUC instead of 0.003 for a tenth of the
    rows, before recovery, since those of a small table are all in use.
    """
    if by == "lookups":
        return _most({t.name: t.lookups[:-1] for t in tables}, fraction)
    return _most({t.name: t.saved(RowCode(t.exact_rank(), max(bits))) for t in tables}, fraction)


def at_least(tables: Sequence[CodedTable], threshold: float) -> Keeps:
    """Return the rows whose largest number is at least `threshold` in magnitude."""
    largest = {t.name: np.abs(t.z[:-1] @ t.basis + t.mean).max(axis=1, initial=0.0) for t in tables}
    return {name: np.flatnonzero(x >= threshold) for name, x in largest.items()}


def _most(worth: Mapping[str, NDArray[np.floating]], fraction: float) -> Keeps:
    """Return the rows worth most, sorted, by table: a fraction of all."""
    sizes = [len(rows) for rows in worth.values()]
    order = np.argsort(-np.concatenate(list(worth.values())), kind="stable")
    chosen = np.zeros(sum(sizes), dtype=bool)
    chosen[order[: int(np.ceil(fraction * len(order)))]] = True
    parts = np.split(chosen, np.cumsum(sizes)[:-1])
    return {name: np.flatnonzero(part) for name, part in zip(worth, parts, strict=True)}


def plan_for_rows(
    tables: Sequence[CodedTable],
    fixed_bytes: int,
    keeps: Keeps,
    fold: Literal["item", "field"],
    bits: Sequence[Bits] = _BITS,
    hot: float = 0.0,
) -> CompressionPlan:
    """Return the plan that keeps some rows of every table with all numbers that carry any loss.

    hot: the fraction of the kept rows, those that gain most by it, that a second code of as many bits refines.
    """
    codes = {t.name: RowCode(t.exact_rank(), max(bits), RowCode(t.exact_rank(), max(bits))) for t in tables}
    gains = {t.name: (t.refined(codes[t.name]) - t.saved(codes[t.name]))[keeps[t.name]] for t in tables if t.refinable}
    hottest = _most(gains, hot) if hot and gains else {}
    plans, spent, saved = {}, 0.0, 0.0
    for table in tables:
        keep, code = keeps[table.name], codes[table.name]
        refined = keep[hottest.get(table.name, _NONE)]
        code = code if len(refined) else replace(code, more=None)
        plans[table.name] = TablePlan(keep, code, refined)
        spent += table.fixed_bytes(code) + float(table.bytes_for(np.array([len(keep)]), code)[0])
        spent += len(refined) * code.more.bytes if code.more else 0
        saved += float(table.saved(code)[keep].sum(dtype=np.float64))
        saved += float(gains[table.name][hottest[table.name]].sum(dtype=np.float64)) if len(refined) else 0.0
    return CompressionPlan(plans, fold, fixed_bytes + int(np.ceil(spent)), _lost(tables, saved), None)
