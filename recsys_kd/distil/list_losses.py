"""Distillation of order: terms that compare the candidates of one request with each other.

Each is a Kullback-Leibler divergence of the student's choices from the teacher's, so it is zero for a student equal to
its teacher and nowhere less. Inputs are logits [B] and the batch's `Lists`; results are nats per request, times T^2.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from recsys_kd.distil.lists import Lists, log_sums


def listwise(student: Tensor, teacher: Tensor, lists: Lists, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(P || Q), P and Q the probabilities sigmoid(logit / T) of a list over their sum.

    A softmax of logits would leave their level free, and pull it; shares of probabilities have the calibrated teacher
    among their minima, and what they leave free, one factor per list, the labels decide. Source: CLID,
    arXiv 2312.08727; the same form for labels in arXiv 2211.01494.
    """
    p, q = (lists.log_softmax(logsigmoid(z / temperature)) for z in (teacher, student))
    return lists.mean(lists.per_list(p.exp() * (p - q))) * temperature**2


def pairwise(student: Tensor, teacher: Tensor, lists: Lists, temperature: float = 1.0) -> Tensor:
    """Return T^2 times the mean over a list's pairs of KL(sigmoid((t_i - t_j) / T) || sigmoid((s_i - s_j) / T)).

    That is RankNet's logistic loss with the teacher's probability that i comes before j as its target, less the
    target's entropy. A pair counts by the product of its weights. Source: Burges et al. ICML 2005.
    """
    first, second = lists.pairs()
    gap, wanted = ((z[first] - z[second]) / temperature for z in (student, teacher))
    target = torch.sigmoid(wanted)
    cross, entropy = (binary_cross_entropy_with_logits(z, target, reduction="none") for z in (gap, wanted))
    weight, code = lists.weight[first] * lists.weight[second], lists.code[first]
    total, divisor = (
        torch.zeros(lists.count, dtype=student.dtype).index_add(0, code, values)
        for values in ((cross - entropy) * weight, weight.to(student.dtype))
    )
    return lists.mean(total / divisor.clamp_min(1e-12)) * temperature**2


def relaxed_ranking(student: Tensor, teacher: Tensor, lists: Lists, top: int = 5, temperature: float = 1.0) -> Tensor:
    """Return T^2 times the KL of the student's choice from the teacher's at each of the first `top` places, summed.

    At place k the choice (Plackett-Luce: in proportion to weight * exp(logit / T)) is among the teacher's rows k .. top
    and all later ones as a single outcome: their own order does not matter, which is what relaxed means. DE-RRD asks
    for the teacher's row at each place with certainty, has no minimum, and is the limit of this for a teacher that is
    certain; here the teacher's own doubt is the target. Source: arXiv 2012.04357.
    """
    group = lists.code * (top + 1) + lists.places(teacher).clamp_max(top)
    p, q = (
        log_sums(lists.mass(z / temperature), group, lists.count * (top + 1)).view(lists.count, top + 1)
        for z in (teacher, student)
    )
    total = torch.zeros(lists.count, dtype=student.dtype)
    for place in range(top):
        here, there = p[:, place:].log_softmax(1), q[:, place:].log_softmax(1)
        total = total + (here.exp() * (here - there)).sum(1)
    return lists.mean(total) * temperature**2
