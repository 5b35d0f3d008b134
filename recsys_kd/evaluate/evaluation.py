"""All models on one sample: metrics, intervals, paired differences, slices and calibration, as plain values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.lists import uninformative
from recsys_kd.evaluate.measure import measure_model
from recsys_kd.evaluate.metrics import CalibrationPoint, auc
from recsys_kd.evaluate.sample import Sample
from recsys_kd.evaluate.sums import Measured, standard_error
from recsys_kd.settings import EvaluateConfig

SMALL_SLICE = 200
"""Rows under which a slice is shown as too small to tell."""


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; NaN ends where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Slice:
    """Every model's AUC on some of the rows; empty where the slice is too small or has one class."""

    name: str
    rows: int
    auc: dict[str, Interval]


@dataclass(frozen=True)
class Evaluation:
    """metrics: model -> metric -> interval. deltas: "a - b" -> metric -> interval of the paired difference."""

    rows: int
    users: int
    requests: int
    positive_rate: float
    confidence: float
    metrics: dict[str, dict[str, Interval]]
    deltas: dict[str, dict[str, Interval]]
    calibration: dict[str, tuple[CalibrationPoint, ...]]
    slices: tuple[Slice, ...]
    uninformative: dict[str, str] = field(default_factory=dict)
    """Metrics that say nothing of any model on these rows, and why."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; undefined numbers become None."""
        return {k: plain_values(v) for k, v in asdict(self).items()}


def plain_values(value: Any) -> Any:
    """Return dicts and lists all through, numbers that are not finite as None: what JSON can hold."""
    if isinstance(value, dict):
        return {k: plain_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def interval(value: float, error: float, confidence: float) -> Interval:
    """Return value +- z * error."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return Interval(value, value - z * error, value + z * error)


def measured_interval(found: Measured, confidence: float) -> Interval:
    """Return a metric with its interval."""
    return Interval(found.value, *found.ends(NormalDist().inv_cdf(0.5 + confidence / 2)))


def difference(a: Measured, b: Measured, confidence: float) -> Interval:
    """Return a - b with the paired interval, clustered by user."""
    if a.influence is None or b.influence is None:
        return Interval(a.value - b.value, float("nan"), float("nan"))
    return interval(a.value - b.value, standard_error(a.influence - b.influence), confidence)


def evaluate(
    logits: Mapping[str, NDArray[np.float32]],
    sample: Sample,
    config: EvaluateConfig,
    pairs: tuple[tuple[str, str], ...] = (),
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Evaluation:
    """Measure every model's logits [N] on the same rows; `pairs` name the differences wanted (a, b): a - b."""
    models = {name: measure_model(z, sample, config.k, config.ece_bins) for name, z in logits.items()}
    measured = {name: model.metrics for name, model in models.items()}
    return Evaluation(
        rows=len(sample.label),
        users=sample.clusters,
        requests=len(np.unique(sample.request)),
        positive_rate=float(sample.positive.mean()),
        confidence=config.confidence,
        metrics={
            name: {m: measured_interval(v, config.confidence) for m, v in all_.items()}
            for name, all_ in measured.items()
        },
        deltas={
            f"{a} - {b}": {m: difference(measured[a][m], measured[b][m], config.confidence) for m in measured[a]}
            for a, b in pairs
        },
        calibration={name: model.calibration for name, model in models.items()},
        slices=tuple(_slice(n, mask, logits, sample, config) for n, mask in (slices or {}).items()),
        uninformative=uninformative(sample, config.k),
    )


def _slice(
    name: str,
    mask: NDArray[np.bool_],
    logits: Mapping[str, NDArray[np.float32]],
    sample: Sample,
    config: EvaluateConfig,
) -> Slice:
    rows = int(mask.sum())
    if rows < SMALL_SLICE:
        return Slice(name, rows, {})
    part = sample.where(mask)
    found = {model: auc(z[mask], part) for model, z in logits.items()}
    good = {m: interval(v.value, v.standard_error, config.confidence) for m, v in found.items() if np.isfinite(v.value)}
    return Slice(name, rows, good)
