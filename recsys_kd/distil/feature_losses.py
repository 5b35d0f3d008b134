"""Distillation of what lies behind the logits: the teacher's hidden layer and its embeddings. Weighted per sample."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from recsys_kd.distil.lists import NOWHERE
from recsys_kd.distil.losses import weighted_mean

BLOCK = 512
"""Rows that are each other's negatives: similarities of a whole batch of 4,096 would cost more than the student."""


def hint(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared difference of the student's projected features and the teacher's, both [B, D].

    FitNets' loss with the mean in place of half the sum over D, so that layers of any width count alike. Source:
    arXiv 1412.6550.
    """
    return weighted_mean((student - teacher).square().mean(1), weight)


def contrastive(student: Tensor, teacher: Tensor, weight: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the KL of which teacher's row a student's row is near to, from that of the teacher's own; inputs [B, D].

    Shares are in proportion to weight * exp(cosine / temperature) over the rows of a block of the batch. This is
    InfoNCE with in-batch negatives whose targets are the teacher's similarities. CRD's target is the row itself alone,
    so it also pushes apart rows that the teacher holds to be the same (one user, two alike items), and is not least at
    the teacher; where the teacher's rows are far apart the two are one. Sources: CRD, arXiv 1910.10699; such
    targets: SEED, arXiv 2101.04731.
    """
    s, t = normalize(student, dim=1), normalize(teacher, dim=1)
    blocks = [slice(at, at + BLOCK) for at in range(0, len(weight), BLOCK)]
    each = [_block(s[b], t[b], weight[b], temperature) for b in blocks]
    return weighted_mean(torch.cat(each), weight)


def _block(student: Tensor, teacher: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Return the divergence of each row [n] of one block."""
    mass = torch.where(weight > 0, weight.clamp_min(1e-30).log(), NOWHERE)
    p, q = ((z @ teacher.T / temperature + mass).log_softmax(1) for z in (teacher, student))
    return (p.exp() * (p - q)).sum(1)
