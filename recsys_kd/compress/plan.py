"""How many rows of which table, how many coordinates per row and how many bits each, fit a byte budget.

Every row has a cost (its bytes on disk, index key included) and a worth (the loss that it saves, see `coding`).
Narrower rows lose a little on every row, fewer rows lose much on some: both are bought at one price per byte. What is
not kept shares its table's fallback row.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.coding import CodedTable, RowCode
from recsys_kd.errors import InputError
from recsys_kd.tables import Bits

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class BadBudget(InputError):
    """The byte budget can't be read, or can't be met."""


class BudgetTooSmall(BadBudget):
    """So many bytes are needed before any id has a row of its own, and the budget is less."""

    def __init__(self, needed: int, budget: int, told: str) -> None:
        super().__init__(told)
        self.needed, self.budget = needed, budget


def parse_bytes(text: str | int) -> int:
    """Return a number of bytes from `20MB`, `1.5 GiB` or a plain number. Raises: BadBudget."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2].upper() not in UNITS:
        raise BadBudget(f"compress.bytes: '{text}' is not a size; write a number of bytes, or such as 20MB or 1.5GiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


@dataclass(frozen=True)
class TablePlan:
    """Rows kept (sorted row numbers, fallback not counted) and how they are written."""

    keep: NDArray[np.int64]
    code: RowCode


@dataclass(frozen=True)
class CompressionPlan:
    """What stays of every table, what the artifact should weigh, and the loss that the plan expects to cost.

    predicted_loss: nats per training row, second-order estimate over lookups in training.
    """

    tables: Mapping[str, TablePlan]
    fold: Literal["item", "field"]
    predicted_bytes: int
    predicted_loss: float
    budget_bytes: int | None

    def summary(self) -> dict[str, Any]:
        """Return the plan as stored in manifests: counts, not row numbers."""
        return {
            "fold": self.fold,
            "rows": {name: len(table.keep) for name, table in self.tables.items()},
            "rank": {name: table.code.rank for name, table in self.tables.items()},
            "bits": {name: table.code.bits for name, table in self.tables.items()},
            "predicted_bytes": self.predicted_bytes,
            "predicted_loss": round(self.predicted_loss, 9),
            "budget_bytes": self.budget_bytes,
        }


Codes = dict[str, RowCode]
_SAMPLE_ROWS = 20_000
_BITS: tuple[Bits, ...] = (4, 8)
_SMALLEST = RowCode(1, 4)


def smallest(tables: Sequence[CodedTable], fixed_bytes: int) -> int:
    """Return the bytes of an artifact whose tables keep nothing but a fallback row of one coordinate at 4 bits."""
    empty = np.zeros(1, dtype=np.int64)
    return fixed_bytes + sum(t.fixed_bytes(_SMALLEST) + int(t.bytes_for(empty, _SMALLEST)[0]) for t in tables)


def nothing_kept(tables: Sequence[CodedTable], fold: Literal["item", "field"]) -> CompressionPlan:
    """Return the plan of `smallest`."""
    none = np.zeros(0, dtype=np.int64)
    return CompressionPlan({t.name: TablePlan(none, _SMALLEST) for t in tables}, fold, 0, _per_row(tables, 0.0), None)


@dataclass(frozen=True)
class _Sample:
    """Some of a table's rows, each standing for `stride` of them: a million rows need not all be asked for a price."""

    table: CodedTable
    rows: CodedTable
    stride: int

    @staticmethod
    def of(table: CodedTable) -> "_Sample":
        stride = max(1, len(table.z) // _SAMPLE_ROWS)
        return _Sample(table, table.thinned(stride), stride)


def _at_price(sample: _Sample, price: float, bits: Sequence[Bits]) -> tuple[RowCode, float]:
    """Return the code that is best when a byte costs `price` nats, and the bytes that the table then takes."""
    found: list[tuple[float, RowCode, float]] = []
    table = sample.table
    for code in table.codes(bits):
        saved, row = sample.rows.saved(code), table.row_bytes(code) * sample.stride
        kept = saved > price * row
        weight = table.fixed_bytes(code) + row * int(np.count_nonzero(kept))
        found.append((price * weight - float(saved[kept].sum(dtype=np.float64)), code, float(weight)))
    _, code, weight = min(found)
    return code, weight


def _codes_for(tables: Sequence[CodedTable], budget: float, bits: Sequence[Bits]) -> Codes:
    """Return every table's code at the lowest price of a byte at which all tables fit `budget`."""
    samples = [_Sample.of(table) for table in tables]
    low, high = -60.0, 20.0  # powers of two
    for _ in range(40):
        middle = (low + high) / 2
        if sum(_at_price(s, 2.0**middle, bits)[1] for s in samples) <= budget:
            high = middle
        else:
            low = middle
    return {s.table.name: _at_price(s, 2.0**high, bits)[0] for s in samples}


def _fill(tables: Sequence[CodedTable], codes: Codes, budget: float) -> tuple[dict[str, TablePlan], int, float]:
    """Return the rows of most worth per byte that fit, the bytes they and their tables take, and the nats they save."""
    worth = [t.saved(codes[t.name]) for t in tables]
    per_byte = np.concatenate([w / t.row_bytes(codes[t.name]) for t, w in zip(tables, worth, strict=True)])
    table_of = np.repeat(np.arange(len(tables)), [len(w) for w in worth])
    order = np.argsort(-per_byte, kind="stable")
    # The bytes after each more row, exact: an index's size is not a straight line.
    total = np.full(len(order) + 1, _fixed(tables, codes))
    for i, table in enumerate(tables):
        counts = np.concatenate([[0], np.cumsum(table_of[order] == i)])
        total += table.bytes_for(counts, codes[table.name])
    fitting = np.flatnonzero(total <= budget)
    if len(fitting) == 0:
        return {}, int(total[0]), -np.inf
    taken = order[: fitting[-1]]
    chosen = np.zeros(len(order), dtype=bool)
    chosen[taken] = True
    parts = np.split(chosen, np.cumsum([len(w) for w in worth])[:-1])
    plans = {t.name: TablePlan(np.flatnonzero(c), codes[t.name]) for t, c in zip(tables, parts, strict=True)}
    return plans, int(total[fitting[-1]]), float(np.concatenate(worth)[taken].sum(dtype=np.float64))


def plan_for_bytes(
    tables: Sequence[CodedTable],
    fixed_bytes: int,
    budget: int,
    fold: Literal["item", "field"],
    bits: Sequence[Bits] = _BITS,
) -> CompressionPlan:
    """Return the plan that loses least with at most `budget` bytes; `fixed_bytes` is all that is not tables.

    Rows kept, coordinates per row and their bits are traded at one price per byte (Lagrangian), then the budget is
    filled up, and single steps of every table's code are tried as long as they help.
    Raises: BadBudget where not even the fallback rows fit, naming the smallest budget that can be met.
    """
    if smallest(tables, fixed_bytes) > budget:
        raise budget_error(smallest(tables, fixed_bytes), budget)
    left = float(budget - fixed_bytes)
    codes = _codes_for(tables, left, bits)
    best = _fill(tables, codes, left)
    improved = True
    while improved:
        improved = False
        for table in tables:
            for code in _near(table, codes[table.name], bits):
                tried = {**codes, table.name: code}
                found = _fill(tables, tried, left)
                if found[2] > best[2] * (1 + 1e-9):
                    codes, best, improved = tried, found, True
    plans, spent, saved = best
    return CompressionPlan(plans, fold, fixed_bytes + spent, _per_row(tables, saved), budget)


def _near(table: CodedTable, code: RowCode, bits: Sequence[Bits]) -> Iterator[RowCode]:
    """Yield the codes one step away: a coordinate more or less, or the other bits."""
    for rank in (code.rank - 1, code.rank + 1):
        if 1 <= rank <= table.dim:
            yield RowCode(rank, code.bits)
    yield from (RowCode(code.rank, other) for other in bits if other != code.bits)


def _fixed(tables: Sequence[CodedTable], codes: Codes) -> int:
    return sum(t.fixed_bytes(codes[t.name]) for t in tables)


def _per_row(tables: Sequence[CodedTable], saved: float) -> float:
    everything = sum(float(t.saved(RowCode(t.dim, 8)).sum(dtype=np.float64)) for t in tables)
    return max(everything - saved, 0.0)


def budget_error(needed: int, budget: int) -> BudgetTooSmall:
    """Return the refusal of a budget that can't be met."""
    return BudgetTooSmall(
        needed,
        budget,
        f"compress: a budget of {budget:,} bytes can't be met: {needed:,} bytes are needed before any id has a row "
        "of its own; raise `compress.bytes` (or lower `compress.ratio`), or make `student.hidden` smaller",
    )


def plan_for_fraction(
    tables: Sequence[CodedTable],
    fixed_bytes: int,
    fraction: float,
    fold: Literal["item", "field"],
    bits: Sequence[Bits] = _BITS,
) -> CompressionPlan:
    """Return the plan that keeps `fraction` of every table's rows, those worth most, in full."""
    plans, spent, saved = {}, 0.0, 0.0
    for table in tables:
        code = RowCode(table.exact_rank(), max(bits))
        worth = table.saved(code)
        count = int(np.ceil(fraction * len(worth)))
        keep = np.sort(np.argsort(-worth, kind="stable")[:count])
        plans[table.name] = TablePlan(keep, code)
        spent += table.fixed_bytes(code) + float(table.bytes_for(np.array([count]), code)[0])
        saved += float(worth[keep].sum(dtype=np.float64))
    return CompressionPlan(plans, fold, fixed_bytes + int(np.ceil(spent)), _per_row(tables, saved), None)
