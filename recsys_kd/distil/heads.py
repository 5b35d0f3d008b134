"""A student's two heads read as one: what the validation days make of the labels' head and the teacher's.

The serving head has learned labels alone, the auxiliary head what the teacher says; each ranks what the other does not.
Their mix is a logistic regression of the labels on both logits (stacked generalization, Wolpert, Neural Networks 5,
1992). It is calibrated by its fit, and weighs nothing: both heads read the same sums, so the mix is a head again.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys_kd.distil.calibration import IDENTITY, fit_platt
from recsys_kd.distil.loop import SCORE_ROWS, auc
from recsys_kd.distil.losses import hard_bce
from recsys_kd.models.source import RowSource
from recsys_kd.models.student import Student

_FIT_ROWS = 262_144


class Heads(NamedTuple):
    """Both heads' logits of some rows, with their labels and weights; float64 [N] each."""

    serving: Tensor
    auxiliary: Tensor
    label: Tensor
    weight: Tensor


class Mix(NamedTuple):
    """What is served: serving * the serving head's logit + auxiliary * the auxiliary head's + offset."""

    serving: float
    auxiliary: float
    offset: float

    def told(self) -> str:
        """Return the mix in words."""
        if self.auxiliary == 0:
            return "serves the labels' head alone: on the validation days the teacher's adds nothing to it"
        if self.serving == 0:
            return "serves the teacher's head alone: on the validation days the labels' adds nothing to it"
        shares = f"{self.serving:.2f} times the labels' logit and {self.auxiliary:.2f} times the teacher's"
        return f"serves both heads, {shares}, as fits the validation days best"


SERVING_ALONE = Mix(1.0, 0.0, 0.0)


@torch.no_grad()
def both_heads(model: Student, source: RowSource, rows: range) -> Heads:
    """Return what both heads say of some rows."""
    model.eval()
    parts = []
    for at in range(rows.start, rows.stop, SCORE_ROWS):
        batch = source.batch(np.arange(at, min(at + SCORE_ROWS, rows.stop)))
        logits = model(batch)
        label, weight = torch.from_numpy(batch.label), torch.from_numpy(batch.weight)
        parts.append([logits.serving, logits.auxiliary, label, weight])
    return Heads(*(torch.cat(column).double() for column in zip(*parts, strict=True)))


def fit_mix(heads: Heads, scale: float) -> Mix:
    """Return the mix of least logloss; the serving head alone where one class is missing.

    A head that would count against what it says counts nothing: it is but noise beside the other. scale: how often
    the auxiliary head counts the wide part, which a mix must not turn round.
    """
    mix = _least_loss(heads)
    return mix if mix.serving + mix.auxiliary * scale > 0 else SERVING_ALONE


def _least_loss(heads: Heads) -> Mix:
    counted = torch.nonzero(heads.weight > 0).squeeze(1)
    some = counted[:: max(1, -(-len(counted) // _FIT_ROWS))]
    serving, auxiliary, label, weight = (column[some] for column in heads)
    if not len(some) or float(label.min()) == float(label.max()):
        return SERVING_ALONE
    both = _regression(torch.stack([serving, auxiliary], dim=1), label, weight)
    if min(both.serving, both.auxiliary) > 0:
        return both
    alone, taught = (fit_platt(head.numpy(), label.numpy(), weight.numpy()) for head in (serving, auxiliary))
    if both.auxiliary > 0 and taught != IDENTITY:
        return Mix(0.0, taught.slope, taught.offset)
    return Mix(alone.slope, 0.0, alone.offset)


def mixed_metrics(model: Student, source: RowSource, rows: range) -> tuple[float, float]:
    """Return logloss in nats of the labels' head, and AUC of the mix that fits some rows.

    The mix is calibrated by its fit to these very rows: its loss would stand beside others' that are not.
    """
    heads = both_heads(model, source, rows)
    mix = fit_mix(heads, model.wide_scale)
    logit = mix.serving * heads.serving + mix.auxiliary * heads.auxiliary
    return float(hard_bce(heads.serving, heads.label, heads.weight)), auc(logit, heads.label, heads.weight)


def _regression(x: Tensor, label: Tensor, weight: Tensor) -> Mix:
    """Return the logistic regression of labels [N] on both heads' logits [N, 2]; nothing of either where it fails."""
    spread = x.std(dim=0, correction=0).clamp_min(1e-9)
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = hard_bce((x / spread) @ theta[:-1] + theta[-1], label, weight)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted = theta.detach()
    found = [*(fitted[:-1] / spread).tolist(), float(fitted[-1])]
    return Mix(*found) if np.isfinite(found).all() else Mix(0.0, 0.0, 0.0)
