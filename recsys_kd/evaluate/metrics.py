"""Metrics with the influence of every user on them, from which all intervals are made.

A metric is returned as its value and, per user, how much that user moved it: the sum of squares of these is the
cluster-robust variance (delta method), and their difference between two models the paired one.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.ranking import Lists, hit_rate, make_lists, ndcg

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The rows that all models are measured on; arrays [N]. `user` and `request` are any int64 codes."""

    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    user: NDArray[np.int64]
    request: NDArray[np.int64]

    @cached_property
    def cluster(self) -> NDArray[np.int64]:
        """Dense user number per row."""
        return np.unique(self.user, return_inverse=True)[1]

    @property
    def clusters(self) -> int:
        """Number of users."""
        return int(self.cluster.max()) + 1

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """Rows counted as clicks."""
        return self.label > 0.5

    def where(self, mask: NDArray[np.bool_]) -> "Sample":
        """Return the rows of a mask."""
        return Sample(self.label[mask], self.weight[mask], self.user[mask], self.request[mask])


@dataclass(frozen=True)
class Measured:
    """A metric's value and each user's influence on it [users]; no influence where the metric has no such form."""

    value: float
    influence: Floats | None

    @property
    def standard_error(self) -> float:
        """Cluster-robust standard error, NaN where unknown."""
        if self.influence is None or len(self.influence) < 2:
            return float("nan")
        groups = len(self.influence)
        return float(np.sqrt(groups / (groups - 1) * np.square(self.influence).sum()))


UNDEFINED = Measured(float("nan"), None)


def _by_user(sample: Sample, influence: Floats) -> Floats:
    return np.bincount(sample.cluster, weights=influence, minlength=sample.clusters).astype(np.float64)


def auc(score: NDArray[np.float32], sample: Sample) -> Measured:
    """Return the area under the ROC curve, ties half; NaN where one class is missing.

    Influence through placement values. Source: DeLong et al. 1988.
    """
    positive = sample.positive
    ups, downs = np.sort(score[positive]), np.sort(score[~positive])
    if len(ups) == 0 or len(downs) == 0:
        return UNDEFINED
    place = np.empty(len(score))
    below = np.searchsorted(downs, score[positive], "left") + np.searchsorted(downs, score[positive], "right")
    place[positive] = below / (2.0 * len(downs))
    above = np.searchsorted(ups, score[~positive], "left") + np.searchsorted(ups, score[~positive], "right")
    place[~positive] = 1.0 - above / (2.0 * len(ups))
    value = float(place[positive].mean())
    influence = np.where(positive, (place - value) / len(ups), (place - value) / len(downs))
    return Measured(value, _by_user(sample, influence))


def gauc(score: NDArray[np.float32], sample: Sample) -> Measured:
    """Return AUC per user, weighted by the user's rows; users with one class are left out. Source: Zhu et al. 2017."""
    order = np.lexsort((score, sample.cluster))
    user, s, y = sample.cluster[order], score[order], sample.positive[order]
    new_user = np.append(True, user[1:] != user[:-1])
    new_group = new_user | np.append(True, s[1:] != s[:-1])
    heads = np.flatnonzero(new_group)
    group = np.cumsum(new_group) - 1
    tails = np.append(heads[1:], len(s)) - 1
    start = np.flatnonzero(new_user)[np.cumsum(new_user) - 1]
    rank = (heads[group] + tails[group]) / 2.0 - start + 1.0
    n = np.bincount(user, minlength=sample.clusters).astype(np.float64)
    ups = np.bincount(user, weights=y, minlength=sample.clusters)
    downs = n - ups
    has = (ups > 0) & (downs > 0)
    if not has.any():
        return UNDEFINED
    rank_sum = np.bincount(user, weights=rank * y, minlength=sample.clusters)
    each = np.divide(rank_sum - ups * (ups + 1) / 2, ups * downs, out=np.zeros(len(n)), where=has)
    share = np.where(has, n, 0.0) / n[has].sum()
    value = float((share * each).sum())
    return Measured(value, share * (each - value))


def row_logloss(logit: NDArray[np.float32], label: NDArray[np.float32]) -> Floats:
    """Return cross-entropy per row in nats, stable for any logit."""
    z = logit.astype(np.float64)
    return np.maximum(z, 0.0) - z * label + np.log1p(np.exp(-np.abs(z)))


def _mean(values: Floats, sample: Sample) -> Measured:
    weight = sample.weight.astype(np.float64)
    total = weight.sum()
    value = float((values * weight).sum() / total)
    return Measured(value, _by_user(sample, weight * (values - value) / total))


def logloss(logit: NDArray[np.float32], sample: Sample) -> Measured:
    """Return the weighted mean cross-entropy in nats."""
    return _mean(row_logloss(logit, sample.label), sample)


def normalized_entropy(logit: NDArray[np.float32], sample: Sample) -> Measured:
    """Return logloss over the entropy of the mean label: 1 is no better than the base rate. Source: He et al. 2014."""
    loss, base = logloss(logit, sample), _mean(sample.label.astype(np.float64), sample)
    p = base.value
    if not 0.0 < p < 1.0 or loss.influence is None or base.influence is None:
        return UNDEFINED
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    slope = np.log((1 - p) / p)
    influence = loss.influence / entropy - loss.value / entropy**2 * slope * base.influence
    return Measured(loss.value / entropy, influence)


@dataclass(frozen=True)
class CalibrationPoint:
    """One bin of equally many rows."""

    predicted: float
    observed: float
    rows: int


def calibration(logit: NDArray[np.float32], sample: Sample, bins: int) -> tuple[CalibrationPoint, ...]:
    """Return mean probability and mean label in bins of equal mass, lowest first."""
    p = 1.0 / (1.0 + np.exp(-logit.astype(np.float64)))
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))
    return tuple(CalibrationPoint(float(p[i].mean()), float(sample.label[i].mean()), len(i)) for i in parts)


def ece(points: tuple[CalibrationPoint, ...]) -> float:
    """Return the expected calibration error: row-weighted |predicted - observed|. Source: Naeini et al. 2015."""
    rows = sum(p.rows for p in points)
    return sum(p.rows * abs(p.predicted - p.observed) for p in points) / rows


def _per_request(values: Floats, has: NDArray[np.bool_], lists: Lists, sample: Sample) -> Measured:
    if not has.any():
        return UNDEFINED
    value = float(values[has].mean())
    owner = sample.cluster[lists.order[lists.starts]]
    influence = np.where(has, values - value, 0.0) / has.sum()
    return Measured(value, np.bincount(owner, weights=influence, minlength=sample.clusters).astype(np.float64))


def measure(logit: NDArray[np.float32], sample: Sample, ks: tuple[int, ...], bins: int) -> dict[str, Measured]:
    """Return every metric of one model by name."""
    lists = make_lists(logit, sample.request)
    found = {
        "auc": auc(logit, sample),
        "gauc": gauc(logit, sample),
        "logloss": logloss(logit, sample),
        "normalized_entropy": normalized_entropy(logit, sample),
        "ece": Measured(ece(calibration(logit, sample, bins)), None),
    }
    for k in ks:
        found[f"ndcg@{k}"] = _per_request(*ndcg(lists, sample.label, k), lists, sample)
        found[f"hit_rate@{k}"] = _per_request(*hit_rate(lists, sample.label, k), lists, sample)
    return found
