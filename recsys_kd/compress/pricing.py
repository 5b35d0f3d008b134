"""The codes of all tables at one price per byte, and the rows that then fill a budget.

A row is bought in one step, or in two: its codes, and what refines it if it is hot. Where the second step is worth more
per byte than the first, both are bought together.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.coding import CodedTable
from recsys_kd.tables import Bits, RowCode

Rows = NDArray[np.int64]
Worth = NDArray[np.floating]
Codes = dict[str, RowCode]
_SAMPLE_ROWS = 20_000
_CURVED = 64
"""Bytes, about, by which an index's size is no straight line."""
_NARROWER, _WIDER = (1.0, 0.75, 0.5, 0.33), (1.0, 1.5, 2.0, 3.0)


class _Curve(NamedTuple):
    """What rows of one tier cost and save: bytes of one, bytes beside, minus each one's worth, best first, and sums."""

    row: float
    fixed: int
    falling: Worth
    sums: Worth


@dataclass(frozen=True)
class Sample:
    """Some of a table's rows, each standing for `stride` of them: a million rows need not all be asked for a price.

    What was worked out is kept: plans for other budgets ask for the same.
    """

    table: CodedTable
    rows: CodedTable
    stride: int
    _curves: dict[RowCode, _Curve] = field(default_factory=dict)
    _worth: dict[RowCode, tuple[Worth, Worth]] = field(default_factory=dict)

    @staticmethod
    def of(table: CodedTable) -> "Sample":
        """Return the sample of a table that prices are found with."""
        stride = max(1, len(table.z) // _SAMPLE_ROWS)
        return Sample(table, table.thinned(stride), stride)

    @staticmethod
    def whole(table: CodedTable) -> "Sample":
        """Return all rows of a table."""
        return Sample(table, table, 1)

    def worth(self, code: RowCode) -> tuple[Worth, Worth]:
        """Return what every row saves, and what refining it saves beside that; nothing where there is one tier."""
        if code not in self._worth:
            saved = self.rows.saved(code)
            self._worth[code] = saved, self.rows.refined(code) - saved if code.more else saved[:0]
        return self._worth[code]

    def at_price(self, price: float, code: RowCode) -> tuple[float, float]:
        """Return what a code costs in nats, less what it saves, when a byte costs `price`; and the table's bytes."""
        if code.more is None:
            curve = self._curve(code)
            count = curve.falling.searchsorted(-price * curve.row)
            weight = curve.fixed + float(count) * curve.row
            return price * weight - float(curve.sums[count]), weight
        row, fixed = self.table.row_bytes(code) * self.stride, self.table.fixed_bytes(code)
        (first, gain), dear = self.worth(code), code.more.bytes * self.stride
        hot = gain > price * dear
        profit = first - price * row + np.where(hot, gain - price * dear, 0.0)
        kept = profit > 0
        weight = fixed + row * int(kept.sum()) + dear * int((kept & hot).sum())
        return price * fixed - float(profit[kept].sum(dtype=np.float64)), weight

    def _curve(self, code: RowCode) -> _Curve:
        if code not in self._curves:
            falling = np.sort(-self.rows.saved(code))
            sums = np.append(0.0, -np.cumsum(falling, dtype=np.float64))
            row, fixed = self.table.row_bytes(code) * self.stride, self.table.fixed_bytes(code)
            self._curves[code] = _Curve(row, fixed, falling, sums)
        return self._curves[code]

    def best(self, price: float, codes: Iterable[RowCode]) -> tuple[RowCode, float]:
        """Return the code that is best at a price, and the bytes that the table then takes."""
        found = [(self.at_price(price, code), code) for code in codes]
        (_, weight), code = min(found, key=lambda f: f[0])
        return code, weight

    def near(self, code: RowCode, bits: Sequence[Bits], tiers: bool) -> Iterator[RowCode]:
        """Yield the codes one step away: a coordinate or a tier more or less, or other bits, in either tier."""
        more, dim = code.more, self.table.dim
        for rank in (code.rank - 1, code.rank + 1):
            if 1 <= rank <= (more.rank if more else dim):
                yield replace(code, rank=rank)
        yield from (replace(code, bits=other) for other in bits if other != code.bits)
        if more is None:
            if tiers and self.table.refinable:
                ranks = {code.rank, (code.rank + 1) // 2}
                yield from (replace(code, rank=r, more=RowCode(code.rank, b)) for r in ranks for b in bits)
            return
        yield replace(code, more=None)
        for rank in (more.rank - 1, more.rank + 1):
            if code.rank <= rank <= dim:
                yield replace(code, more=replace(more, rank=rank))
        yield from (replace(code, more=replace(more, bits=other)) for other in bits if other != more.bits)


@dataclass(frozen=True)
class Filled:
    """Rows kept and hot per table, the bytes that tables and rows take, and the nats that they save.

    price: nats per byte of the last row that was bought, 0 where everything was.
    """

    keep: Mapping[str, Rows]
    hot: Mapping[str, Rows]
    bytes: int
    saved: float
    price: float = 0.0


def everything(tables: Iterable[CodedTable]) -> float:
    """Return the nats that all rows in full would save."""
    return sum(float(t.saved(RowCode(t.dim, 8)).sum(dtype=np.float64)) for t in tables)


class Market:
    """All tables' codes, asked for again and again: by prices, by budgets, in one tier and in two."""

    def __init__(self, tables: Sequence[CodedTable]) -> None:
        self.tables = tables
        self.samples = {table.name: Sample.of(table) for table in tables}
        self._prices: dict[tuple[float, tuple[Bits, ...]], float] = {}
        self._is_whole = all(sample.stride == 1 for sample in self.samples.values())

    @cached_property
    def everything(self) -> float:
        """The nats that all rows in full would save: the same for every budget."""
        return everything(self.tables)

    def searched(self, budget: float, bits: Sequence[Bits], tiers: bool) -> tuple[Codes, Filled]:
        """Return the codes that save most, by single steps from those of one price, and the rows that they keep."""
        codes = self.priced(budget, bits, tiers)
        best = fill(self.samples.values(), codes, budget)
        improved = True
        while improved:
            improved = False
            for name, sample in self.samples.items():
                for code in self._promising(sample, codes[name], best, budget, bits, tiers):
                    tried = {**codes, name: code}
                    found = fill(self.samples.values(), tried, budget)
                    if found.saved > best.saved * (1 + 1e-9):
                        codes, best, improved = tried, found, True
        return codes, best if self._is_whole else fill(map(Sample.whole, self.tables), codes, budget)

    def _promising(
        self, sample: Sample, code: RowCode, best: Filled, budget: float, bits: Sequence[Bits], tiers: bool
    ) -> list[RowCode]:
        """Return the codes one step away that could save more.

        At the price of the last row bought, no rows under any codes save more than the budget's price less what the
        codes cost less what they save (weak duality): a code that costs more by more than what is left of the budget
        need not be tried.
        """
        if not np.isfinite(best.saved):
            return list(sample.near(code, bits, tiers))
        left = budget - best.bytes + _CURVED
        limit = sample.at_price(best.price, code)[0] + best.price * left
        return [c for c in sample.near(code, bits, tiers) if sample.at_price(best.price, c)[0] <= limit]

    def priced(self, budget: float, bits: Sequence[Bits], tiers: bool) -> Codes:
        """Return every table's code at the lowest price of a byte at which all tables fit `budget`.

        Two tiers are tried at the price that rows of one tier have found.
        """
        price = self._price(budget, tuple(bits))
        codes = {name: s.best(price, s.table.codes(bits))[0] for name, s in self.samples.items()}
        if not tiers:
            return codes
        for name, sample in self.samples.items():
            if sample.table.refinable:
                codes[name], _ = sample.best(price, [codes[name], *_tiers(codes[name], sample.table.dim, bits)])
        return codes

    def _price(self, budget: float, bits: tuple[Bits, ...]) -> float:
        """Return the lowest price of a byte at which all tables, in one tier, fit."""
        if (budget, bits) not in self._prices:
            codes = [(sample, list(sample.table.codes(bits))) for sample in self.samples.values()]
            low, high = -60.0, 20.0  # powers of two
            for _ in range(40):
                middle = (low + high) / 2
                if sum(sample.best(2.0**middle, own)[1] for sample, own in codes) <= budget:
                    high = middle
                else:
                    low = middle
            self._prices[budget, bits] = 2.0**high
        return self._prices[budget, bits]


def _tiers(code: RowCode, dim: int, bits: Sequence[Bits]) -> Iterator[RowCode]:
    """Yield codes in two tiers, around one of one tier."""
    narrow = {max(1, round(code.rank * share)) for share in _NARROWER}
    wide = {min(dim, round(code.rank * share)) for share in _WIDER}
    for rank in sorted(narrow):
        for hot in sorted(w for w in wide if w >= rank):
            yield from (RowCode(rank, own, RowCode(hot, more)) for own in bits for more in bits)


def _steps(sample: Sample, code: RowCode) -> list[tuple[Worth, Worth]]:
    """Return worth per byte and worth of each row, and where there are two tiers of what refines it."""
    (saved, gain), row = sample.worth(code), sample.table.row_bytes(code) * sample.stride
    if code.more is None:
        return [(saved / row, saved)]
    dear = code.more.bytes * sample.stride
    alone, added, both = saved / row, gain / dear, (saved + gain) / (row + dear)
    together = added > alone
    return [(np.where(together, both, alone), saved), (np.where(together, both, added), gain)]


def fill(samples: Iterable[Sample], codes: Codes, budget: float) -> Filled:
    """Return the steps of most worth per byte that fit, and the bytes they and their tables take."""
    steps = [(s, tier, *step) for s in samples for tier, step in enumerate(_steps(s, codes[s.table.name]))]
    per_byte, worth = (np.concatenate([step[i] for step in steps]) for i in (2, 3))
    sizes = [len(step[3]) for step in steps]
    step_of, tier_of = np.repeat(np.arange(len(steps)), sizes), np.repeat([step[1] for step in steps], sizes)
    order = np.argsort(-per_byte, kind="stable")  # a row's own step stays before the one that refines it
    order = order[(tier_of[order] == 0) | (worth[order] > 0)]
    # The bytes after each more step, exact: an index's size is not a straight line.
    fixed = sum(s.table.fixed_bytes(codes[s.table.name]) for s, tier, *_ in steps if tier == 0)
    total = np.full(len(order) + 1, fixed)
    for i, (sample, tier, *_) in enumerate(steps):
        code = codes[sample.table.name]
        counts = np.concatenate([[0], np.cumsum(step_of[order] == i)]) * sample.stride
        total += sample.table.bytes_for(counts, code) if tier == 0 or code.more is None else counts * code.more.bytes
    fitting = np.flatnonzero(total <= budget)
    if len(fitting) == 0:
        return Filled({}, {}, int(total[0]), -np.inf)
    bought = order[: fitting[-1]]
    chosen = np.zeros(len(worth), dtype=bool)
    chosen[bought] = True
    parts = [np.flatnonzero(part) for part in np.split(chosen, np.cumsum(sizes)[:-1])]
    keep = {step[0].table.name: rows for step, rows in zip(steps, parts, strict=True) if step[1] == 0}
    hot = {step[0].table.name: rows for step, rows in zip(steps, parts, strict=True) if step[1] == 1}
    # A tier without rows would only cost its bits: the same codes without it are one step away.
    saved = -np.inf if any(len(rows) == 0 for rows in hot.values()) else float(worth[chosen].sum(dtype=np.float64))
    price = float(per_byte[bought[-1]]) if 0 < len(bought) < len(order) else 0.0
    return Filled(keep, hot, int(total[fitting[-1]]), saved, max(price, 0.0))
