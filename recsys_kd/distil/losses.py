"""What the student is asked to match, each term true to its name and weighted per sample.

L = L_hard + the sum of weight * term (see `recsys_kd.distil.objective`). A distillation term is zero for a student
equal to its teacher.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return sum(values * weight) / sum(weight); 0 where the weights are all 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)


def hard_bce(logit: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Return binary cross-entropy in nats per sample; label in [0, 1], all inputs [B]."""
    return weighted_mean(binary_cross_entropy_with_logits(logit, label, reduction="none"), weight)


def soft_bce(student: Tensor, teacher: Tensor, weight: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(sigmoid(teacher / T) || sigmoid(student / T)), nats per sample; logits [B].

    This is soft binary cross-entropy less the teacher's own entropy, a constant: same gradient, and zero at the
    teacher. T^2 keeps the gradient's size independent of T. Source: Hinton et al., arXiv 1503.02531, section 2.
    """
    target = torch.sigmoid(teacher / temperature)
    cross = binary_cross_entropy_with_logits(student / temperature, target, reduction="none")
    entropy = binary_cross_entropy_with_logits(teacher / temperature, target, reduction="none")
    return weighted_mean(cross - entropy, weight) * temperature**2


def logit_mse(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared difference of logits [B]. Source: Ba and Caruana, arXiv 1312.6184."""
    return weighted_mean((student - teacher).square(), weight)
