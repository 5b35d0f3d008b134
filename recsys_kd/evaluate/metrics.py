"""Metrics of rows, each with the sums per user from which all intervals are made.

Ties: equal scores count half in AUC and GAUC, and always share a calibration bin, so that no metric depends on the
order of the log. Scores are float32 logits; sums are float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.ranking import sort_key
from recsys_kd.evaluate.sample import Floats, Sample
from recsys_kd.evaluate.sums import UNDEFINED, Measured, UserSums, ratio, ratio_of

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Sorted:
    """Rows by rising score; `heads` are the places at which a new score begins, `group` [N] says which."""

    order: NDArray[np.int64]
    heads: NDArray[np.int64]
    group: NDArray[np.int32]


def sort_scores(score: Scores) -> Sorted:
    """Sort rows [N] by score, lowest first."""
    order = np.argsort(sort_key(score))
    s = score[order]
    new = np.ones(len(s), dtype=bool)
    np.not_equal(s[1:], s[:-1], out=new[1:])
    return Sorted(order, np.flatnonzero(new), (np.cumsum(new, dtype=np.int32) - 1).astype(np.int32, copy=False))


def _places(at: Sorted, positive: NDArray[np.bool_]) -> Floats:
    """Return per row the share of the other class that it stands right of, ties half: DeLong's placement values."""
    ups = positive[at.order]
    place = np.empty(len(ups))
    total = (len(ups) - int(ups.sum()), int(ups.sum()))
    sorted_place = np.zeros(len(ups))
    for right, mine in ((True, ups), (False, ~ups)):
        other = np.concatenate([[0], np.cumsum(~mine, dtype=np.int64)])
        ends = np.append(at.heads[1:], len(ups))
        half = (other[at.heads] + other[ends]) / (2.0 * total[0 if right else 1])
        value = half[at.group]
        np.copyto(sorted_place, value if right else 1.0 - value, where=mine)
    place[at.order] = sorted_place
    return place


def auc(score: Scores, sample: Sample, at: Sorted | None = None) -> Measured:
    """Return the area under the ROC curve, ties half; NaN where one class is missing.

    Its sums are those of the placement values of both classes: totals give AUC up to a term of order 1/users (the
    degenerate part of a two-sample U-statistic). Source: DeLong et al. 1988.
    """
    positive = sample.positive
    count = int(positive.sum())
    if count in (0, len(positive)):
        return UNDEFINED
    place = _places(at or sort_scores(score), positive)
    value = float(place[positive].mean())
    ups, rows = sample.by_user(positive), np.bincount(sample.cluster, minlength=sample.clusters).astype(np.float64)
    won = sample.by_user(np.where(positive, place, 0.0))
    columns = np.stack([won, ups, sample.by_user(place) - won, rows - ups], axis=1)

    def of(totals: Floats) -> Floats:
        return ratio_of(totals[..., :2]) + ratio_of(totals[..., 2:]) - value

    downs = len(place) - count
    gradient = np.array([1 / count, -value / count, 1 / downs, -value / downs])
    return Measured(value, UserSums(columns, of, gradient))


def gauc(score: Scores, sample: Sample) -> Measured:
    """Return AUC per user, weighted by the user's rows; users with one class are left out. Source: Zhu et al. 2017."""
    order = np.argsort(sort_key(score, sample.cluster))
    user, s, y = sample.cluster[order], score[order], sample.positive[order]
    new = np.ones(len(s), dtype=bool)
    new[1:] = (user[1:] != user[:-1]) | (s[1:] != s[:-1])
    heads = np.flatnonzero(new)
    tails = np.append(heads[1:], len(s)) - 1
    group = np.cumsum(new, dtype=np.int32) - 1
    rank = ((heads + tails) / 2.0 + 1.0)[group]
    n = np.bincount(user, minlength=sample.clusters).astype(np.float64)
    ups = np.bincount(user, weights=y, minlength=sample.clusters)
    start = np.cumsum(n) - n
    has = (ups > 0) & (ups < n)
    rank_sum = np.bincount(user, weights=np.where(y, rank, 0.0), minlength=sample.clusters) - start * ups
    each = np.divide(rank_sum - ups * (ups + 1) / 2, ups * (n - ups), out=np.zeros(len(n)), where=has)
    return ratio(np.where(has, n * each, 0.0), np.where(has, n, 0.0))


def row_logloss(logit: Scores, label: NDArray[np.float32]) -> Floats:
    """Return cross-entropy per row in nats, stable for any logit."""
    z = logit.astype(np.float64)
    return np.maximum(z, 0.0) - z * label + np.log1p(np.exp(-np.abs(z)))


def logloss(logit: Scores, sample: Sample) -> Measured:
    """Return the weighted mean cross-entropy in nats."""
    weight = sample.weight.astype(np.float64)
    return ratio(sample.by_user(row_logloss(logit, sample.label) * weight), sample.by_user(weight))


def normalized_entropy(logit: Scores, sample: Sample, loss: Measured | None = None) -> Measured:
    """Return logloss over the entropy of the mean label: 1 is no better than the base rate. Source: He et al. 2014."""
    found = loss or logloss(logit, sample)
    if found.sums is None:
        return UNDEFINED
    clicks = sample.by_user(sample.label * sample.weight.astype(np.float64))
    columns = np.column_stack([found.sums.columns, clicks])
    lost, weight, clicked = columns.sum(axis=0)
    p = clicked / weight
    if not 0.0 < p < 1.0:
        return UNDEFINED
    entropy, slope = float(_entropy(p)), np.log((1 - p) / p)
    ne = lost / weight / entropy
    gradient = np.array(
        [1 / (weight * entropy), ne * (-1 / weight + slope / entropy * p / weight), -ne * slope / (entropy * weight)]
    )
    return Measured(float(ne), UserSums(columns, _normalized, gradient))


def _entropy(p: Floats | float) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-(p * np.log(p) + (1 - p) * np.log(1 - p)))


def _normalized(totals: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(totals[..., 0] / totals[..., 1] / _entropy(totals[..., 2] / totals[..., 1]))


@dataclass(frozen=True)
class CalibrationPoint:
    """One bin of equally many rows."""

    predicted: float
    observed: float
    rows: int


def _bins(score: Scores, bins: int, at: Sorted) -> NDArray[np.int64]:
    """Return a bin of equal mass per row [N]; rows of one score share a bin, so there may be fewer and unequal ones."""
    n, wanted = len(score), min(bins, len(score))
    cuts = np.cumsum([len(part) for part in np.array_split(np.empty(n, dtype=np.bool_), wanted)])[:-1]
    edges = np.unique(score[at.order[cuts]])
    return np.searchsorted(edges, score, side="right")


def _calibration(logit: Scores, sample: Sample, bins: int, at: Sorted) -> tuple[tuple[CalibrationPoint, ...], Measured]:
    of_row = _bins(logit, bins, at)
    used = np.flatnonzero(np.bincount(of_row))
    of_row = np.searchsorted(used, of_row)
    p = 1.0 / (1.0 + np.exp(-logit.astype(np.float64)))
    rows = np.bincount(of_row).astype(np.int64)
    predicted, observed = (np.bincount(of_row, weights=v) / rows for v in (p, sample.label))
    points = tuple(
        CalibrationPoint(float(a), float(b), int(n)) for a, b, n in zip(predicted, observed, rows, strict=True)
    )
    cell = sample.cluster.astype(np.int64) * len(used) + of_row
    gap = np.bincount(cell, weights=p - sample.label, minlength=sample.clusters * len(used))
    columns = np.column_stack([gap.reshape(sample.clusters, len(used)), np.bincount(sample.cluster)])
    value = ece(points)
    gradient = np.append(np.sign(predicted - observed), -value) / len(logit)
    return points, Measured(value, UserSums(columns, _gaps, gradient))


def _gaps(totals: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.abs(totals[..., :-1]).sum(axis=-1) / totals[..., -1])


def calibration(logit: Scores, sample: Sample, bins: int) -> tuple[CalibrationPoint, ...]:
    """Return mean probability and mean label in bins of equal mass, lowest first; equal scores share a bin."""
    return _calibration(logit, sample, bins, sort_scores(logit))[0]


def ece(points: tuple[CalibrationPoint, ...]) -> float:
    """Return the expected calibration error: row-weighted |predicted - observed|. Source: Naeini et al. 2015."""
    rows = sum(p.rows for p in points)
    return sum(p.rows * abs(p.predicted - p.observed) for p in points) / rows


def row_metrics(logit: Scores, sample: Sample, bins: int) -> tuple[dict[str, Measured], tuple[CalibrationPoint, ...]]:
    """Return every metric of rows by name, and the calibration curve.

    ECE's bins are fixed by the whole sample; near a gap of 0 in some bin its intervals are too narrow.
    """
    at = sort_scores(logit)
    points, error = _calibration(logit, sample, bins, at)
    loss = logloss(logit, sample)
    found = {
        "auc": auc(logit, sample, at),
        "gauc": gauc(logit, sample),
        "logloss": loss,
        "normalized_entropy": normalized_entropy(logit, sample, loss),
        "ece": error,
    }
    return found, points
