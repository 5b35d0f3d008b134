"""What a student is trained to make small: L = L_hard + the sum of weight * term, the terms and weights of a recipe.

Terms on logits look at the auxiliary head by default (`distil.head`), so that only labels move the served probability.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_kd.batch import Batch
from recsys_kd.distil.hints import Hints
from recsys_kd.distil.list_losses import listwise, pairwise, relaxed_ranking
from recsys_kd.distil.lists import Lists
from recsys_kd.distil.losses import hard_bce, logit_mse, soft_bce
from recsys_kd.models.student import Logits
from recsys_kd.settings import OVER_FEATURES, DistilConfig, LossName

Rows = NDArray[np.int64]


def objective(
    logits: Logits, batch: Batch, teacher: Tensor | None, distil: DistilConfig, hints: Hints | None, l2: float
) -> Tensor:
    """Return L of one batch, and l2 times the squared norm of the rows looked up.

    teacher: its logits [B], NaN where it never scored a row; None trains the control.
    """
    label, weight = torch.from_numpy(batch.label), torch.from_numpy(batch.weight)
    loss = hard_bce(logits.serving, label, weight) + l2 * logits.penalty
    if teacher is None:
        return loss
    head = logits.auxiliary if distil.head == "auxiliary" else logits.serving
    loss = loss + terms_on_logits(head, teacher, batch, distil)
    return loss if hints is None else loss + hints(distil.losses, logits.features, batch, weight)


def terms_on_logits(student: Tensor, teacher: Tensor, batch: Batch, distil: DistilConfig) -> Tensor:
    """Return the weighted sum of the terms that look at logits [B]; rows whose teacher is NaN don't count."""
    known = torch.isfinite(teacher)
    weight = torch.from_numpy(batch.weight) * known
    wanted = torch.where(known, teacher, 0.0)
    lists = Lists.of(batch.request, weight) if distil.over_requests else None
    total = torch.zeros(())
    for name, share in distil.losses.items():
        if name not in OVER_FEATURES:
            total = total + share * _term(name, student, wanted, weight, lists, distil)
    return total


def _term(
    name: LossName, student: Tensor, teacher: Tensor, weight: Tensor, lists: Lists | None, distil: DistilConfig
) -> Tensor:
    if name == "soft_bce":
        return soft_bce(student, teacher, weight, distil.temperature)
    if name == "logit_mse":
        return logit_mse(student, teacher, weight)
    if lists is None:
        raise TypeError(f"'{name}' compares the rows of a request, and there are no lists")
    if name == "listwise":
        return listwise(student, teacher, lists, distil.temperature)
    if name == "pairwise":
        return pairwise(student, teacher, lists, distil.temperature)
    return relaxed_ranking(student, teacher, lists, distil.top, distil.temperature)


def shuffled(rows: Rows, size: int, seed: int, requests: NDArray[np.generic] | None) -> Iterator[Rows]:
    """Yield `rows` in batches of `size`, shuffled by `seed`.

    Given `requests`, the request of every row of the source, batches hold whole requests, of about `size` rows.
    """
    rng = np.random.default_rng(seed)
    if requests is None:
        order = rng.permutation(rows)
        cuts = np.arange(size, len(order), size)
    else:
        _, code = np.unique(requests[rows], return_inverse=True)
        place = rng.permutation(int(code.max(initial=-1)) + 1)[code]
        sort = np.argsort(place, kind="stable")
        order, starts = rows[sort], np.flatnonzero(np.diff(place[sort])) + 1
        wanted = np.searchsorted(starts, np.arange(size, len(order), size))
        cuts = np.unique(starts[wanted[wanted < len(starts)]])
    yield from (part for part in np.split(order, cuts) if len(part))
