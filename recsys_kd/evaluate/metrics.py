"""Metrics of rows, each with the sums per user from which all intervals are made.

Rows count their weight in AUC, logloss, normalized entropy and ECE, as in what is fitted; in GAUC each counts one.

Ties: equal scores count half in AUC and GAUC, and always share a calibration bin, so that no metric depends on the
order of the log. Scores are float32 or float64 logits, ordered as they were logged; sums are float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit  # type: ignore[import-untyped]

from recsys_kd.evaluate.sample import Floats, Sample
from recsys_kd.evaluate.scores import Scores, Values, scores_of
from recsys_kd.evaluate.sorting import Sorted, sort_scores, user_blocks
from recsys_kd.evaluate.sums import UNDEFINED, Measured, UserSums, ratio, ratio_of


def _pairs_won(at: Sorted, sample: Sample) -> tuple[Floats, Floats]:
    """Return per user twice the pairs (click, no click) in the right order, ties half: of its clicks, of its others.

    A pair counts the product of its weights. Sums run on from block to block, so that blocks change no bit.
    """
    won = np.zeros(2 * sample.clusters)
    clicks = float(sample.weight[sample.positive].sum(dtype=np.float64))
    clicks_before = others_before = 0.0
    for part in at.blocks():
        rows = at.rows(part)
        up, weight = sample.positive[rows], sample.weight[rows].astype(np.float64)
        ups = np.cumsum(np.append(clicks_before, weight * up))
        downs = np.cumsum(np.append(others_before, weight * ~up))
        heads = at.heads(part)
        ends = np.append(heads[1:], len(rows))
        group = np.repeat(np.arange(len(heads)), ends - heads)
        twice_below, twice_above = downs[heads] + downs[ends], 2 * clicks - (ups[heads] + ups[ends])
        weight *= np.where(up, twice_below[group], twice_above[group])
        np.add.at(won, sample.cluster[rows] + np.where(up, 0, sample.clusters), weight)
        clicks_before, others_before = ups[-1], downs[-1]
    return won[: sample.clusters], won[sample.clusters :]


def auc(score: Scores | Values, sample: Sample, at: Sorted | None = None) -> Measured:
    """Return the area under the ROC curve, ties half, pairs by their weights' product; NaN where a class is missing.

    Its sums are those of the placement values of both classes: totals give AUC up to a term of order 1/users (the
    degenerate part of a two-sample U-statistic). Source: DeLong et al. 1988.
    """
    ups = sample.summed(lambda rows: sample.weight[rows] * sample.positive[rows])
    others = sample.summed(lambda rows: sample.weight[rows] * ~sample.positive[rows])
    count, downs = float(ups.sum()), float(others.sum())
    if 0 in (count, downs):
        return UNDEFINED
    of_clicks, of_others = _pairs_won(at or sort_scores(scores_of(score).order), sample)
    value = float(of_clicks.sum() / (2.0 * count * downs))
    columns = np.stack([of_clicks / (2.0 * downs), ups, of_others / (2.0 * count), others], axis=1)

    def of(totals: Floats) -> Floats:
        return ratio_of(totals[..., :2]) + ratio_of(totals[..., 2:]) - value

    gradient = np.array([1 / count, -value / count, 1 / downs, -value / downs])
    return Measured(value, UserSums(columns, of, gradient))


def gauc(score: Scores | Values, sample: Sample) -> Measured:
    """Return AUC per user, weighted by the user's rows; users with one class are left out. Source: Zhu et al. 2017.

    A user's AUC is no sum over requests: clustered by request it has a value and no interval.
    """
    top, bottom = np.zeros(sample.persons), np.zeros(sample.persons)
    for user, key, up in user_blocks(scores_of(score).order, sample.positive, sample.person):
        heads = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        ends = np.append(heads[1:], len(key))
        rank = np.repeat((heads + ends + 1) / 2.0, ends - heads)
        here = slice(int(user[0]), int(user[-1]) + 1)
        n = np.bincount(user - here.start).astype(np.float64)
        ups = np.bincount(user - here.start, weights=up)
        has = (ups > 0) & (ups < n)
        ranks = np.bincount(user - here.start, weights=np.where(up, rank, 0.0)) - (np.cumsum(n) - n) * ups
        each = np.divide(ranks - ups * (ups + 1) / 2, ups * (n - ups), out=np.zeros(len(n)), where=has)
        top[here], bottom[here] = np.where(has, n * each, 0.0), np.where(has, n, 0.0)
    found = ratio(top, bottom)
    return found if sample.by == "user" else Measured(found.value, None)


def row_logloss(logit: Values, label: NDArray[np.float32]) -> Floats:
    """Return cross-entropy per row in nats, stable for any logit."""
    z = logit.astype(np.float64)
    return np.maximum(z, 0.0) - z * label + np.log1p(np.exp(-np.abs(z)))


def logloss(score: Scores | Values, sample: Sample) -> Measured:
    """Return the weighted mean cross-entropy in nats."""
    logit = scores_of(score).logit
    lost = sample.summed(lambda rows: row_logloss(logit[rows], sample.label[rows]) * sample.weight[rows])
    return ratio(lost, sample.by_cluster(sample.weight))


def normalized_entropy(score: Scores | Values, sample: Sample, loss: Measured | None = None) -> Measured:
    """Return logloss over the entropy of the mean label: 1 is no better than the base rate. Source: He et al. 2014."""
    found = loss or logloss(score, sample)
    if found.sums is None:
        return UNDEFINED
    clicks = sample.summed(lambda rows: sample.label[rows] * sample.weight[rows].astype(np.float64))
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
    """One bin of equally many rows; predicted and observed are means by weight, `weight` is the rows' sum."""

    predicted: float
    observed: float
    rows: int
    weight: float


def _bins(bins: int, at: Sorted) -> tuple[slice, ...]:
    """Return bins of equally many rows as slices of the sorted; equal scores share a bin, so they may be unequal."""
    n, wanted = len(at), min(bins, len(at))
    return at.whole(np.cumsum([n // wanted + (i < n % wanted) for i in range(wanted - 1)], dtype=np.int64))


def _calibration(logit: Values, sample: Sample, bins: int, at: Sorted) -> tuple[tuple[CalibrationPoint, ...], Measured]:
    parts = _bins(bins, at)
    columns = np.empty((sample.clusters, len(parts) + 1))
    points = []
    for i, part in enumerate(parts):
        rows = at.rows(part)
        p, label = expit(logit[rows].astype(np.float64)), sample.label[rows]
        weight = sample.weight[rows].astype(np.float64)
        columns[:, i] = np.bincount(sample.cluster[rows], weights=(p - label) * weight, minlength=sample.clusters)
        points.append(_point(p, label, weight))
    columns[:, -1] = sample.by_cluster(sample.weight)
    counted = tuple(point for point in points if point.weight > 0)
    if not counted:
        return (), UNDEFINED
    value = ece(counted)
    signs = np.sign([p.predicted - p.observed if p.weight > 0 else 0.0 for p in points])
    sums = UserSums(columns, _gaps, np.append(signs, -value) / columns[:, -1].sum())
    return counted, Measured(value, sums, _lift_of_chance(columns))


def _point(p: Floats, label: NDArray[np.float32], weight: Floats) -> CalibrationPoint:
    """Return a bin's point; NaN means where all of its rows have weight 0."""
    total = float(weight.sum())
    predicted, observed = (float((v * weight).sum() / total) if total > 0 else np.nan for v in (p, label))
    return CalibrationPoint(predicted, observed, len(p), total)


def _lift_of_chance(columns: Floats) -> float:
    """Return by how much chance lifts ECE at most, on average: sqrt(2/pi) * sum of the bins' standard errors.

    The mean of |gap + noise| is furthest above |gap| where gap is 0. Source of the bias: Roelofs et al. 2022, Kumar et
    al. 2019; the latter's correction by simulation takes off 41% of it for a calibrated model, this all of it.
    """
    users, total = len(columns), columns[:, -1].sum()
    residual = columns[:, :-1] - columns[:, -1:] * (columns[:, :-1].sum(axis=0) / total)
    variance = np.einsum("ub,ub->b", residual, residual) * (users / max(users - 1, 1))
    return float(np.sqrt(2.0 / np.pi) * np.sqrt(variance).sum() / total)


def _gaps(totals: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.abs(totals[..., :-1]).sum(axis=-1) / totals[..., -1])


def calibration(score: Scores | Values, sample: Sample, bins: int) -> tuple[CalibrationPoint, ...]:
    """Return mean probability and mean label, by weight, in bins of equally many rows, lowest first.

    Equal scores share a bin; bins whose rows all have weight 0 are left out.
    """
    scores = scores_of(score)
    return _calibration(scores.logit, sample, bins, sort_scores(scores.order))[0]


def ece(points: tuple[CalibrationPoint, ...]) -> float:
    """Return the expected calibration error: |predicted - observed| by bins' weight. Source: Naeini et al. 2015."""
    return sum(p.weight * abs(p.predicted - p.observed) for p in points) / sum(p.weight for p in points)


def row_metrics(
    score: Scores | Values, sample: Sample, bins: int
) -> tuple[dict[str, Measured], tuple[CalibrationPoint, ...]]:
    """Return every metric of rows by name, and the calibration curve.

    ECE's bins are fixed by the whole sample. Chance lifts ECE on small logs (a calibrated model on 4,000 rows has 0.026
    on average), so its interval begins lower by what chance could have added.
    """
    scores = scores_of(score)
    at = sort_scores(scores.order)
    points, error = _calibration(scores.logit, sample, bins, at)
    loss = logloss(scores, sample)
    found = {
        "auc": auc(scores, sample, at),
        "gauc": gauc(scores, sample),
        "logloss": loss,
        "normalized_entropy": normalized_entropy(scores, sample, loss),
        "ece": error,
    }
    return found, points
