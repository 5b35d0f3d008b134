"""The codes of all tables at one price per byte, and the rows that then fill a budget.

A row is bought in one step, or in two: its codes, and what refines it if it is hot. Where the second step is worth more
per byte than the first, both are bought together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.coding import CodedTable, RowCode
from recsys_kd.tables import Bits

Rows = NDArray[np.int64]
Worth = NDArray[np.floating]
Codes = dict[str, RowCode]
_SAMPLE_ROWS = 20_000
_NARROWER, _WIDER = (1.0, 0.75, 0.5, 0.33), (1.0, 1.5, 2.0, 3.0)


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

    def at_price(self, price: float, code: RowCode) -> tuple[float, float]:
        """Return what a code costs in nats, less what it saves, when a byte costs `price`; and the table's bytes."""
        saved, row = self.rows.saved(code), self.table.row_bytes(code) * self.stride
        cost = np.full(len(saved), row)
        if code.more:
            refined, dear = self.rows.refined(code), row + code.more.bytes * self.stride
            hot = refined - price * dear > saved - price * row
            saved, cost = np.where(hot, refined, saved), np.where(hot, dear, row)
        kept = saved > price * cost
        weight = self.table.fixed_bytes(code) + float(cost[kept].sum())
        return price * weight - float(saved[kept].sum(dtype=np.float64)), weight


def _best(sample: _Sample, price: float, codes: Iterator[RowCode]) -> tuple[RowCode, float]:
    """Return the code that is best at a price, and the bytes that the table then takes."""
    found = [(sample.at_price(price, code), code) for code in codes]
    (_, weight), code = min(found, key=lambda f: f[0])
    return code, weight


def codes_for(tables: Sequence[CodedTable], budget: float, bits: Sequence[Bits], tiers: bool) -> Codes:
    """Return every table's code at the lowest price of a byte at which all tables fit `budget`.

    Two tiers are tried at the price that rows of one tier have found.
    """
    samples = [_Sample.of(table) for table in tables]
    low, high = -60.0, 20.0  # powers of two
    for _ in range(40):
        middle = (low + high) / 2
        if sum(_best(s, 2.0**middle, s.table.codes(bits))[1] for s in samples) <= budget:
            high = middle
        else:
            low = middle
    codes = {}
    for sample in samples:
        table, price = sample.table, 2.0**high
        code, _ = _best(sample, price, table.codes(bits))
        if tiers and table.refinable:
            code, _ = _best(sample, price, iter([code, *_tiers(code, table.dim, bits)]))
        codes[table.name] = code
    return codes


def _tiers(code: RowCode, dim: int, bits: Sequence[Bits]) -> Iterator[RowCode]:
    """Yield codes in two tiers, around one of one tier."""
    narrow = {max(1, round(code.rank * share)) for share in _NARROWER}
    wide = {min(dim, round(code.rank * share)) for share in _WIDER}
    for rank in sorted(narrow):
        for hot in sorted(w for w in wide if w >= rank):
            yield from (RowCode(rank, own, RowCode(hot, more)) for own in bits for more in bits)


def near(table: CodedTable, code: RowCode, bits: Sequence[Bits], tiers: bool) -> Iterator[RowCode]:
    """Yield the codes one step away: a coordinate or a tier more or less, or other bits, in either tier."""
    for rank in (code.rank - 1, code.rank + 1):
        if 1 <= rank <= (code.more.rank if code.more else table.dim):
            yield replace(code, rank=rank)
    yield from (replace(code, bits=other) for other in bits if other != code.bits)
    if code.more is None:
        if tiers and table.refinable:
            yield from (
                replace(code, rank=r, more=RowCode(code.rank, b))
                for r in {code.rank, (code.rank + 1) // 2}
                for b in bits
            )
        return
    yield replace(code, more=None)
    for rank in (code.more.rank - 1, code.more.rank + 1):
        if code.rank <= rank <= table.dim:
            yield replace(code, more=replace(code.more, rank=rank))
    yield from (replace(code, more=replace(code.more, bits=other)) for other in bits if other != code.more.bits)


@dataclass(frozen=True)
class Filled:
    """Rows kept and hot per table, the bytes that tables and rows take, and the nats that they save."""

    keep: Mapping[str, Rows]
    hot: Mapping[str, Rows]
    bytes: int
    saved: float


def _steps(table: CodedTable, code: RowCode) -> list[tuple[Worth, Worth]]:
    """Return worth per byte and worth of each row, and where there are two tiers of what refines it."""
    saved, row = table.saved(code), table.row_bytes(code)
    if code.more is None:
        return [(saved / row, saved)]
    gain, dear = table.refined(code) - saved, code.more.bytes
    alone, added, both = saved / row, gain / dear, (saved + gain) / (row + dear)
    together = added > alone
    return [(np.where(together, both, alone), saved), (np.where(together, both, added), gain)]


def fill(tables: Sequence[CodedTable], codes: Codes, budget: float) -> Filled:
    """Return the steps of most worth per byte that fit, and the bytes they and their tables take."""
    steps = [(table, tier, *step) for table in tables for tier, step in enumerate(_steps(table, codes[table.name]))]
    per_byte, worth = (np.concatenate([step[i] for step in steps]) for i in (2, 3))
    sizes = [len(step[3]) for step in steps]
    step_of, tier_of = np.repeat(np.arange(len(steps)), sizes), np.repeat([step[1] for step in steps], sizes)
    order = np.argsort(-per_byte, kind="stable")  # a row's own step stays before the one that refines it
    order = order[(tier_of[order] == 0) | (worth[order] > 0)]
    # The bytes after each more step, exact: an index's size is not a straight line.
    total = np.full(len(order) + 1, sum(t.fixed_bytes(codes[t.name]) for t in tables))
    for i, (table, tier, *_) in enumerate(steps):
        counts, code = np.concatenate([[0], np.cumsum(step_of[order] == i)]), codes[table.name]
        total += table.bytes_for(counts, code) if tier == 0 or code.more is None else counts * code.more.bytes
    fitting = np.flatnonzero(total <= budget)
    if len(fitting) == 0:
        return Filled({}, {}, int(total[0]), -np.inf)
    chosen = np.zeros(len(worth), dtype=bool)
    chosen[order[: fitting[-1]]] = True
    parts = [np.flatnonzero(part) for part in np.split(chosen, np.cumsum(sizes)[:-1])]
    keep = {step[0].name: rows for step, rows in zip(steps, parts, strict=True) if step[1] == 0}
    hot = {step[0].name: rows for step, rows in zip(steps, parts, strict=True) if step[1] == 1}
    # A tier without rows would only cost its bits: the same codes without it are one step away.
    saved = -np.inf if any(len(rows) == 0 for rows in hot.values()) else float(worth[chosen].sum(dtype=np.float64))
    return Filled(keep, hot, int(total[fitting[-1]]), saved)
