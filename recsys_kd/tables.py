"""Row-wise int8 and int4 tables and the compiled student made of them; NumPy only, shared by exporter and scorer.

A row costs dim (at 4 bits, half of it) + 4 bytes: codes, then float16 scale and float16 offset, in the row itself, so
that one candidate costs one cache line. dim 64 falls from 256 to 68 bytes, 3.76x, not 4x.
value = code * scale + offset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.index import KeyIndex
from recsys_kd.schema import Schema, Side

OVERHEAD = 4
"""Bytes of scale and offset in every row."""
LARGEST = 60000.0
"""Largest magnitude that a half-precision offset is trusted with."""


class NonFiniteTable(InputError):
    """A table to be quantized holds NaN or infinite values."""


class RowTable(Protocol):
    """Rows of numbers, the last one the fallback."""

    @property
    def rows(self) -> int:
        """Rows, fallback included."""
        ...

    @property
    def dim(self) -> int:
        """Values per row."""
        ...

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the values of `rows` [N] as float32 [N, dim]."""
        ...


@dataclass(frozen=True)
class Float32Table:
    """`data` float32 [rows, dim]: what an int8 table is compared with."""

    data: NDArray[np.float32]

    @property
    def rows(self) -> int:
        """Rows, fallback included."""
        return int(self.data.shape[0])

    @property
    def dim(self) -> int:
        """Values per row."""
        return int(self.data.shape[1])

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the values of `rows` [N] as float32 [N, dim]."""
        return self.data[rows]


Bits = Literal[4, 8]


def code_bytes(dim: int, bits: int) -> int:
    """Return the bytes that the codes of one row take."""
    return -(-dim * bits // 8)


@dataclass(frozen=True)
class CodedRows:
    """`data` uint8 [rows, code_bytes + 4]: codes (at 4 bits two to a byte, the even one low), scale, offset.

    The last row is the fallback.
    """

    data: NDArray[np.uint8]
    bits: Bits
    dim: int

    @property
    def rows(self) -> int:
        """Rows, fallback included."""
        return int(self.data.shape[0])

    def scales_and_offsets(self) -> NDArray[np.float16]:
        """Return float16 [rows, 2]: scale and offset of every row."""
        return np.ascontiguousarray(self.data[:, -OVERHEAD:]).view(np.float16)

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the values of `rows` [N] as float32 [N, dim]."""
        picked = self.data[rows]
        tail = np.ascontiguousarray(picked[:, -OVERHEAD:]).view(np.float16).astype(np.float32)
        codes = picked[:, :-OVERHEAD]
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)[:, : self.dim]
        return codes.astype(np.float32) * tail[:, :1] + tail[:, 1:]


def quantize_rows(weight: NDArray[np.float32], bits: Bits = 8) -> CodedRows:
    """Return `weight` [rows, dim] as codes with scale and offset per row.

    At 8 bits the range of a row is that of its values: an error is at most scale/2 + one float16 rounding of the
    offset. At 4 bits the range is narrowed where that lowers the row's squared error. The codes are chosen against the
    rounded scale and offset. Source: FBGEMM's fused row-wise formats, with half-precision scale and offset; the search
    is the greedy one of Guan et al., arXiv 1911.02079, on a grid.
    Raises: NonFiniteTable if any value is NaN, infinite or beyond float16's range.
    """
    if weight.size and not np.abs(weight).max() <= LARGEST:
        raise NonFiniteTable("table to quantize holds NaN, infinite or huge values: training diverged, lower `lr`")
    low, high = weight.min(axis=1, keepdims=True), weight.max(axis=1, keepdims=True)
    if bits == 4:
        low, high = _clipped(weight, low, high)
    codes, tail = _codes(weight, low, high, 2**bits - 1)
    if bits == 4:
        even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
        codes = even[:, ::2] | (even[:, 1::2] << np.uint8(4))
    packed = np.ascontiguousarray(tail).view(np.uint8)
    return CodedRows(np.concatenate([codes, packed], axis=1), bits, weight.shape[1])


_Range = NDArray[np.float32]
_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6)


def _codes(weight: _Range, low: _Range, high: _Range, top: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Return codes [rows, dim] in [0, top], and scale and offset as float16 [rows, 2]."""
    offset = low.astype(np.float16)
    # Round the offset down and the scale up, so that the coded range still covers the row.
    offset = np.where(offset.astype(np.float32) > low, np.nextafter(offset, np.float16(-np.inf)), offset)
    span = high - offset.astype(np.float32)
    scale = (span / top).astype(np.float16)
    scale = np.where(scale.astype(np.float32) * top < span, np.nextafter(scale, np.float16(np.inf)), scale)
    scale = np.maximum(scale, np.finfo(np.float16).tiny)
    codes = np.rint((weight - offset.astype(np.float32)) / scale.astype(np.float32)).clip(0, top).astype(np.uint8)
    return codes, np.concatenate([scale, offset], axis=1)


def _clipped(weight: _Range, low: _Range, high: _Range) -> tuple[_Range, _Range]:
    """Return the range of each row, cut at either end as far as the squared error at 4 bits falls."""
    middle = (low + high) * np.float32(0.5)
    best = np.full(len(weight), np.inf)
    chosen_low, chosen_high = low.copy(), high.copy()
    for keep_low in _CLIPS:
        for keep_high in _CLIPS:
            below = (keep_low * low + (1 - keep_low) * middle).astype(np.float32)
            above = (keep_high * high + (1 - keep_high) * middle).astype(np.float32)
            codes, tail = _codes(weight, below, above, 15)
            values = codes * tail[:, :1].astype(np.float32) + tail[:, 1:].astype(np.float32)
            error = np.square(values - weight).sum(axis=1)
            better = error < best
            best[better] = error[better]
            chosen_low[better], chosen_high[better] = below[better], above[better]
    return chosen_low, chosen_high


Layout = Literal["compact", "folded"]


@dataclass(frozen=True)
class Term:
    """What one field, or all item-side fields together, adds to (h, S, s).

    compact: the row holds e [d] and a linear weight; it adds (W e, e, linear - |e|^2 / 2), W = `first.<name>` [H, d].
    folded: the row holds what it adds: [H + d + 1]. Dense and vector terms have no table but arrays: `first.<name>`
    [H, dim] and `linear.<name>` [dim]; vector terms also `project.<name>` [d, dim], and then `first.<name>` is [H, d].
    view: which values it reads from the table's rows; a history of items shares the items' rows, but not their view.
    """

    name: str
    field: str
    side: Side
    kind: Literal["row", "bag", "dense", "vector"]
    table: str | None = None
    view: str | None = None
    layout: Layout = "compact"


@dataclass(frozen=True)
class CompiledStudent:
    """The student as it is served.

    logit = bias + s + |S|^2 / 2 + MLP(relu(h + `hidden.0.bias`)), where (h [H], S [d], s) are sums over all terms
    (the factorization-machine identity: sum of pair products = (|S|^2 - sum |e|^2) / 2).
    A table's row holds r coordinates z; a view of it reads `mean.<view>` [dim] + z @ `basis.<view>` [r, dim].
    indexes: per table, raw key -> row; row len(index) is the fallback.
    arrays: float32: `bias` [1], `hidden.0.bias` [H], `hidden.<i>.weight` [out, in], `hidden.<i>.bias`, `out.weight`
    [last].
    codes: per item-side field that keeps a table of its own, uint8, uint16 or int32 [item rows]: its row for every item
    of table `item`.
    """

    schema: Schema
    width: int
    first: int
    terms: tuple[Term, ...]
    tables: Mapping[str, RowTable]
    indexes: Mapping[str, KeyIndex]
    arrays: Mapping[str, NDArray[np.float32]]
    codes: Mapping[str, NDArray[np.integer]]


@dataclass(frozen=True)
class StudentWeights:
    """A trained student in float32, before pruning and folding.

    tables: per vocabulary [size, d + 1], embedding and linear weight, fallback last. arrays: `first.<field>` [H, d] per
    lookup field (dense: [H, dim]; vector: [H, d] with `project.<field>` [d, dim]), `linear.<field>` [dim] per dense or
    vector field, and the head's arrays as in `CompiledStudent`.
    """

    schema: Schema
    width: int
    first: int
    tables: Mapping[str, NDArray[np.float32]]
    arrays: Mapping[str, NDArray[np.float32]]
