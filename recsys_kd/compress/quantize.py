"""Float rows -> codes with a scale per row, block by block: what is in work at once fits a core's cache.

A table is never whole in memory twice, and a block's passes cost as much as one: 8 bits are coded about as fast as a
file is copied.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.tables import CLIPS, LARGEST, OVERHEAD, Bits, CodedRows, code_bytes, middle

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
_BLOCK_NUMBERS = 131_072


class NonFiniteTable(InputError):
    """A table to be quantized holds NaN or infinite values."""


def quantize_rows(weight: Floats, bits: Bits = 8, search: bool = True) -> CodedRows:
    """Return `weight` [rows, dim] as codes with a scale per row.

    At 8 bits a row's range is that of its largest magnitude, its scale rounded up: an error is at most scale/2. At 4
    bits the range is narrowed where that lowers the row's squared error, unless `search` is off. Codes are chosen
    against the rounded scale.
    Source: symmetric row-wise formats as FBGEMM's, with half-precision scale; the search is the one of Guan et al.,
    arXiv 1911.02079, on a grid.
    Raises: NonFiniteTable if any value is NaN, infinite or beyond float16's range.
    """
    rows, dim = weight.shape
    out = np.empty((rows, code_bytes(dim, bits) + OVERHEAD), np.uint8)
    step = max(1, _BLOCK_NUMBERS // max(dim, 1))
    for start in range(0, rows, step):
        _quantize_block(np.ascontiguousarray(weight[start : start + step]), bits, search, out[start : start + step])
    return CodedRows(out, bits, dim)


def _quantize_block(weight: Floats, bits: Bits, search: bool, out: Codes) -> None:
    largest = _largest(weight)
    if not largest.max(initial=0.0) <= LARGEST:
        raise NonFiniteTable("table to quantize holds NaN, infinite or huge values: training diverged, lower `lr`")
    if bits == 8:
        scale = scale_for(largest, 8)
        out[:, :-OVERHEAD] = _rounded(weight, scale, 8)
    else:
        codes, scale = _search(weight, largest, CLIPS if search else CLIPS[:1])
        out[:, :-OVERHEAD] = paired(codes)
    out[:, -OVERHEAD:] = np.ascontiguousarray(scale).view(np.uint8)


def _largest(weight: Floats) -> Floats:
    """Return each row's largest magnitude [rows, 1], NaN where the row holds one."""
    # As whole numbers, magnitudes have the same order, NaN above all; comparing those is several times faster.
    bits = (weight.view(np.int32) & np.int32(0x7FFFFFFF)).max(axis=1, keepdims=True, initial=0)
    found: Floats = bits.view(np.float32)
    return found


def scale_for(reach: Floats, bits: Bits) -> NDArray[np.float16]:
    """Return the smallest half-precision scale at which codes still reach `reach` [rows, 1] on either side of zero."""
    half = np.float32(middle(bits))
    scale = (reach / half).astype(np.float16)
    short = scale.astype(np.float32) * half < reach
    return np.maximum(np.where(short, np.nextafter(scale, np.float16(np.inf)), scale), np.finfo(np.float16).tiny)


def _rounded(weight: Floats, scale: NDArray[np.float16], bits: Bits) -> Floats:
    """Return codes [rows, dim], still as float32."""
    found: Floats = np.divide(weight, scale.astype(np.float32))
    found += np.float32(middle(bits))
    np.rint(found, out=found)
    if bits == 4:  # a narrowed range leaves some beyond its ends
        np.minimum(np.maximum(found, np.float32(0), out=found), np.float32(15), out=found)
    return found


def _search(weight: Floats, largest: Floats, clips: Sequence[float]) -> tuple[Codes, NDArray[np.float16]]:
    """Return 4-bit codes [rows, dim] and scales [rows, 1] of the range that leaves the least squared error."""
    best = np.full(len(weight), np.inf, np.float32)
    codes: Codes = np.zeros(weight.shape, np.uint8)
    scale: NDArray[np.float16] = np.zeros((len(weight), 1), np.float16)
    for clip in clips:
        tried = scale_for(largest * np.float32(clip), 4)
        found = _rounded(weight, tried, 4)
        error = (found - np.float32(middle(4))) * tried.astype(np.float32)
        error -= weight
        squared = np.einsum("nd,nd->n", error, error)
        better = squared < best
        best[better], scale[better] = squared[better], tried[better]
        np.copyto(codes, found, where=better[:, None], casting="unsafe")
    return codes, scale


def paired(codes: Codes) -> Codes:
    """Return 4-bit codes [rows, dim] two to a byte, the even one low."""
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    packed: Codes = even[:, ::2] | (even[:, 1::2] << np.uint8(4))
    return packed
