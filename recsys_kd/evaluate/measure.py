"""Every metric of one model on one sample."""

from dataclasses import dataclass

from recsys_kd.evaluate.lists import list_metrics
from recsys_kd.evaluate.metrics import CalibrationPoint, row_metrics
from recsys_kd.evaluate.sample import Sample
from recsys_kd.evaluate.scores import Scores, Values, scores_of
from recsys_kd.evaluate.sums import Measured

LOWER_IS_BETTER = frozenset({"logloss", "normalized_entropy", "ece"})
NEITHER_IS_BETTER = ("coverage", "popularity")
"""Described, not judged: whether more is better is for the shop to say."""


@dataclass(frozen=True)
class Model:
    """What was measured of one model."""

    metrics: dict[str, Measured]
    calibration: tuple[CalibrationPoint, ...]


def measure_model(score: Scores | Values, sample: Sample, ks: tuple[int, ...], bins: int) -> Model:
    """Return every metric and the calibration curve of one model's logits [N]."""
    scores = scores_of(score)  # ordered once for all metrics
    rows, points = row_metrics(scores, sample, bins)
    return Model(rows | list_metrics(scores, sample, ks), points)


def measure(score: Scores | Values, sample: Sample, ks: tuple[int, ...], bins: int) -> dict[str, Measured]:
    """Return every metric of one model by name."""
    return measure_model(score, sample, ks, bins).metrics


def direction(metric: str) -> int:
    """Return 1 where more is better, -1 where less is, 0 where the number only describes."""
    if metric.startswith(NEITHER_IS_BETTER):
        return 0
    return -1 if metric in LOWER_IS_BETTER else 1
