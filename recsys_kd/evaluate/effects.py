"""One treatment against the control on one metric: how much, how sure, and what may be said of it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.evaluate.inference import clusters_needed, critical, p_value, smallest_effect
from recsys_kd.evaluate.measure import direction
from recsys_kd.evaluate.sample import Unit
from recsys_kd.evaluate.sums import Measured, standard_error
from recsys_kd.settings import Margin

Outcome = Literal["better", "no worse", "worse", "undecided", "not decided on"]
NAN = float("nan")


@dataclass(frozen=True)
class Level:
    """How sure to be, with how many users (or requests)."""

    confidence: float
    power: float
    clusters: int
    by: Unit = "user"


@dataclass(frozen=True)
class Effect:
    """Treatment - control of one metric. `delta` and `bootstrap` are paired intervals of the difference."""

    treatment: str
    metric: str
    control_value: float
    treatment_value: float
    delta: Interval
    bootstrap: Interval
    error: float
    p: float
    adjusted_p: float
    detectable: float
    """Smallest effect that this log shows with the power asked for; NaN where models can't differ."""
    margin: float | None
    better_by: float | None
    clusters_needed: int | None
    """Users (or requests) that would show an effect of the margin's size; None where the metric does not decide."""
    outcome: Outcome


def raw_effect(treatment: str, metric: str, control: Measured, treated: Measured, level: Level) -> Effect:
    """Return an effect by the delta method; p-values are not adjusted yet and nothing is decided."""
    value = treated.value - control.value
    error = NAN
    if control.influence is not None and treated.influence is not None:
        error = standard_error(treated.influence - control.influence)
    half = critical(level.confidence, level.clusters) * error
    return Effect(
        treatment,
        metric,
        control.value,
        treated.value,
        Interval(value, value - half, value + half),
        Interval(value, NAN, NAN),
        error,
        p_value(value, error, level.clusters),
        NAN,
        smallest_effect(error, level.confidence, level.power, level.clusters) if error > 0 else NAN,
        None,
        None,
        None,
        "not decided on",
    )


def percentiles(value: float, replicates: NDArray[np.float64], confidence: float) -> Interval:
    """Return the percentile interval of a bootstrap; NaN ends where a twentieth of the replicates is undefined."""
    known = replicates[np.isfinite(replicates)]
    if len(known) < 0.95 * len(replicates):
        return Interval(value, NAN, NAN)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def superiority_p(effect: Effect, margin: Margin, level: Level) -> float:
    """Return the two-sided p-value of the treatment being neither worse, nor better by more than `better_by`.

    With `better_by` 0 it is the effect's own p. Where the null is a range, its nearer end is what must be refuted.
    """
    gain = direction(effect.metric) * effect.delta.value
    beyond = gain - margin.better_by if gain > 0 else gain
    return 1.0 if gain > 0 and beyond <= 0 else p_value(beyond, effect.error, level.clusters)


def outcome(effect: Effect, margin: Margin, alpha: float) -> Outcome:
    """Return what may be said: superiority and inferiority need Holm's p, being no worse only the interval.

    That all deciding metrics are no worse is an intersection-union test, which needs no correction.
    """
    sign = direction(effect.metric)
    low, high = sorted((sign * effect.delta.low, sign * effect.delta.high))
    if not np.isfinite(low):
        return "undecided"
    significant = effect.adjusted_p < alpha
    if significant and low > margin.better_by:
        return "better"
    if low > -margin.not_worse:
        return "no worse"
    if significant and high < 0:
        return "worse"
    return "undecided"


def needed(effect: Effect, margin: Margin, level: Level) -> int | None:
    """Return how many clusters would show an effect of the margin's size."""
    if not np.isfinite(effect.error) or effect.error == 0:
        return None
    return clusters_needed(level.clusters, margin.not_worse, effect.error, level.confidence, level.power)
