"""Rows as they will read once they are coded: what a fit that allows for rounding looks up.

Forwards a row has the values of its codes, as `recsys_kd.compress.quantize` finds them; backwards it is passed over, so
that the row moves as if it had not been rounded (straight-through estimator: Bengio et al., arXiv 1308.3432).
"""

import torch
from torch import Tensor

from recsys_kd.tables import CLIPS, Bits, RowCode, middle


def as_coded(rows: Tensor, code: RowCode, hot: Tensor | None) -> Tensor:
    """Return rows [N, code.widest] as their codes read, those that are `hot` [N] in two tiers."""
    with torch.no_grad():
        rounded = torch.zeros_like(rows)
        rounded[:, : code.rank] = _rounded(rows[:, : code.rank], code.bits, True)
        if code.more is not None and hot is not None and hot.any():
            rounded[hot] = _refined(rows[hot], code, code.more)
    return rows + (rounded - rows).detach()


def _refined(rows: Tensor, code: RowCode, more: RowCode) -> Tensor:
    base = torch.zeros_like(rows)
    base[:, : code.rank] = _rounded(rows[:, : code.rank], code.bits, False)
    return base + _rounded(rows - base, more.bits, True)


def _rounded(rows: Tensor, bits: Bits, search: bool) -> Tensor:
    """Return rows in whole steps of a range each, the one of least squared error among those that are tried."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    best = _in_steps(rows, largest, bits)
    for clip in CLIPS[1:] if search and bits == 4 else ():
        tried = _in_steps(rows, largest * clip, bits)
        better = (tried - rows).square().sum(1) < (best - rows).square().sum(1)
        best = torch.where(better[:, None], tried, best)
    return best


def _in_steps(rows: Tensor, reach: Tensor, bits: Bits) -> Tensor:
    half = middle(bits)
    step = (reach / half).half()
    # Scales are rounded up, so that all is reached: to the next number there is in half precision.
    larger = (step.view(torch.int16) + 1).view(torch.float16)
    step = torch.where(step.float() * half < reach, larger, step).float().clamp(min=torch.finfo(torch.float16).tiny)
    return ((rows / step + half).round().clamp(0, 2 * half) - half) * step
