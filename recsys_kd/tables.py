"""Row-wise int8 and int4 tables and the compiled student made of them; NumPy only, shared by exporter and scorer.

A row costs dim (at 4 bits, half of it) + 2 bytes: codes, then a float16 scale, in the row itself, so that one candidate
costs one cache line. dim 64 falls from 256 to 66 bytes, 3.88x, not 4x.
value = (code - middle) * scale, middle = (2^bits - 1) / 2: rows are coordinates around their table's mean, so that an
offset per row would cost more bytes than it saves error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_kd.index import KeyIndex
from recsys_kd.schema import Schema, Side

OVERHEAD = 2
"""Bytes of the scale in every row."""
LARGEST = 60000.0
"""Largest magnitude that half precision is trusted with."""
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Shares of a row's largest magnitude that are tried as the range of its 4-bit codes."""


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


Bits = Literal[4, 8]


@dataclass(frozen=True)
class RowCode:
    """How a table's rows are written: so many coordinates of so many bits.

    more: what hot rows have beside that (`RefinedRows`), with as many coordinates or more.
    """

    rank: int
    bits: Bits
    more: "RowCode | None" = None

    @property
    def widest(self) -> int:
        """Coordinates of a hot row, or of any where none is."""
        return self.rank if self.more is None else self.more.rank

    @property
    def bytes(self) -> int:
        """Bytes of a row, what is added to hot ones not counted."""
        return code_bytes(self.rank, self.bits) + OVERHEAD


@dataclass(frozen=True)
class Float32Table:
    """`data` float32 [rows, dim]: what an int8 table is compared with, and what is fitted before it is coded.

    code: how the rows are to be written. hot bool [rows]: where it is given, only hot rows have all numbers; others
    have zeros from `code.rank` on.
    """

    data: NDArray[np.float32]
    hot: NDArray[np.bool_] | None = None
    code: RowCode | None = None

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


def middle(bits: int) -> float:
    """Return the code, between two others, that stands for zero."""
    return float(2**bits - 1) / 2


def code_bytes(dim: int, bits: int) -> int:
    """Return the bytes that the codes of one row take."""
    return -(-dim * bits // 8)


@dataclass(frozen=True)
class CodedRows:
    """`data` uint8 [rows, code_bytes + 2]: codes (at 4 bits two to a byte, the even one low), scale.

    The last row is the fallback.
    """

    data: NDArray[np.uint8]
    bits: Bits
    dim: int

    @property
    def rows(self) -> int:
        """Rows, fallback included."""
        return int(self.data.shape[0])

    def scales(self) -> NDArray[np.float16]:
        """Return the scale of every row, float16 [rows]."""
        return _scales(self.data)[:, 0]

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the values of `rows` [N] as float32 [N, dim]."""
        picked = self.data[rows]
        codes, scale = picked[:, :-OVERHEAD], _scales(picked).astype(np.float32)
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), 2 * codes.shape[1])[:, : self.dim]
        values: NDArray[np.float32] = (codes.astype(np.float32) - np.float32(middle(self.bits))) * scale
        return values


def _scales(data: NDArray[np.uint8]) -> NDArray[np.float16]:
    return np.ascontiguousarray(data[:, -OVERHEAD:]).view(np.float16)


@dataclass(frozen=True)
class RefinedRows:
    """Rows in two tiers: all are coded in `base`, and what `more` holds is added to those that are looked up most.

    hot uint8 [(rows + 7) // 8]: bit i % 8 of byte i // 8 says that row i is refined; rows of `more` follow in that
    order, and its last one adds nothing. `more` may have more numbers per row; base rows have zeros there. 4 and 4 bits
    are then about 8, 8 and 8 finer than float16. Source: successive refinement, Equitz & Cover 1991.
    """

    base: CodedRows
    more: CodedRows
    hot: NDArray[np.uint8]

    @property
    def rows(self) -> int:
        """Rows, fallback included."""
        return self.base.rows

    @property
    def dim(self) -> int:
        """Values per row."""
        return self.more.dim

    @cached_property
    def codes(self) -> NDArray[np.integer]:
        """Row of `more` for every row [rows], in the narrowest type."""
        is_hot = np.unpackbits(self.hot, count=self.rows, bitorder="little").astype(bool)
        kind = np.uint8 if self.more.rows <= 2**8 else np.uint16 if self.more.rows <= 2**16 else np.int32
        codes: NDArray[np.integer] = np.where(is_hot, np.cumsum(is_hot) - 1, self.more.rows - 1).astype(kind)
        return codes

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the values of `rows` [N] as float32 [N, dim]."""
        values = self.more.lookup(self.codes[rows].astype(np.int64))
        values[:, : self.base.dim] += self.base.lookup(rows)
        return values


def nothing_row(dim: int, bits: Bits) -> NDArray[np.uint8]:
    """Return a coded row [1, bytes] that adds nothing: half a step of 6e-8, the smallest scale there is."""
    code = 0x88 if bits == 4 else 0x80
    scale = np.array([np.finfo(np.float16).smallest_subnormal], np.float16).view(np.uint8)
    return np.concatenate([np.full(code_bytes(dim, bits), code, np.uint8), scale])[None]


_Values = NDArray[np.float32]


@dataclass(frozen=True)
class CodedMatrix:
    """A dense layer's weights: codes int8 [out, in] and a float16 scale per row; value = code * scale."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float16]

    @property
    def values(self) -> _Values:
        """The matrix in float32, exactly."""
        values: _Values = self.codes.astype(np.float32) * self.scales.astype(np.float32)[:, None]
        return values


def matrix_bytes(rows: int, columns: int) -> int:
    """Return the bytes of a coded matrix."""
    return rows * columns + 2 * rows


def code_matrix(weight: _Values) -> CodedMatrix:
    """Return `weight` [out, in] as int8; the largest number of a row has code 127 or -127.

    Coding what `CodedMatrix.values` gave returns the same codes: 127 * scale is exact in float32.
    """
    largest = np.abs(weight).max(axis=1, initial=0.0)
    scales = (largest / np.float32(127)).astype(np.float16)
    safe = np.where(scales > 0, scales, 1).astype(np.float32)[:, None]
    codes = np.rint(weight / safe).clip(-127, 127)
    codes = np.where(np.abs(weight) == largest[:, None], np.sign(weight) * 127, codes)
    return CodedMatrix(np.where(scales[:, None] > 0, codes, 0).astype(np.int8), scales)


def coded_exactly(weight: _Values) -> CodedMatrix | None:
    """Return the int8 codes and scales that `weight` [out, in] was made of; None where it was not."""
    coded = code_matrix(weight)
    return coded if np.array_equal(coded.values, weight) else None


Layout = Literal["compact", "folded"]
Activations = Literal["int16", "float32"]
"""How hidden layers of int8 weights read their inputs: in steps of 15 bits and a sign, or as they are."""


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
    activations: Activations = "int16"


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
