"""What another policy would have earned, estimated from a log that says how likely it was to show what it showed.

w = target / propensity. Every estimator is a ratio of sums over users (or requests), so its interval is clustered, by
the delta method, and allows for their skewness. Sources: IPS Horvitz and Thompson 1952; SNIPS Swaminathan and Joachims
2015; doubly robust Dudik et al. 2011; switch-DR Wang et al. 2017.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.evaluate.inference import critical, skewed_ends
from recsys_kd.evaluate.sums import Measured, ratio, standard_error
from recsys_kd.settings import SMALLEST_PROPENSITY

Floats = NDArray[np.float64]
CLIP_QUANTILE, SWITCH = 0.99, 10.0
THIN = 100.0
SKEWED = 0.1
"""Share of rows that count below which weighted estimates may miss too often: the rows that matter most may be missing.
At 3 to 9%, 400 simulated logs of 4,000 or 10,000 rows, clicks of 1 to 5%: IPS and SNIPS held the truth in 88 to 98%
(symmetric intervals in 79 to 92%); fewest where an effective row in a hundred is clicked."""


class NoPropensity(InputError):
    """The log does not say how likely what it showed was."""


class BadPropensity(InputError):
    """A propensity is no probability that a policy could have drawn with."""


@dataclass(frozen=True)
class Logged:
    """A log of shown items; arrays [N]. target: the other policy's chance of showing the same in the same place.

    expected_logged, expected_target: a reward model's mean for what was shown, and for what the other policy would
    show; both cross-fitted (see `offpolicy_model`), None without one.
    """

    reward: Floats
    propensity: Floats
    target: Floats
    cluster: NDArray[np.int64]
    """Dense number of the user, or request."""
    expected_logged: Floats | None = None
    expected_target: Floats | None = None


@dataclass(frozen=True)
class Overlap:
    """How much of the log speaks for the other policy. effective: (sum w)^2 / sum w^2 (Kish); mean should be 1."""

    rows: int
    effective: float
    largest: float
    mean: float
    mean_error: float
    unsupported: float
    """Share of rows that the other policy would never show."""

    @property
    def whole(self) -> bool:
        """Whether the weights average 1 but for chance; where not, IPS and clipped IPS miss by the same factor."""
        return abs(self.mean - 1) <= 0.01 or abs(self.mean - 1) <= 4 * self.mean_error


@dataclass(frozen=True)
class OffPolicy:
    """Every estimate with its interval, and its difference from what the log earned."""

    logged: Interval
    estimates: dict[str, Interval]
    lift: dict[str, Interval]
    overlap: Overlap
    weights: Floats
    warnings: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    """Estimates that are not self-normalized, and whose weights do not average 1: neither value nor lift nor interval
    holds. DM weighs no row, but its interval is DR's."""


def check_propensity(propensity: Floats | None, target: Floats) -> Floats:
    """Return propensities that can be divided by. Raises: NoPropensity, BadPropensity (0, below 1e-8, above 1, NaN)."""
    if propensity is None:
        raise NoPropensity(
            "the log has no propensity column: what another policy would earn can't be told from it; log the chance of "
            "each shown item (columns.propensity), or compare with A/B"
        )
    # As float32, in which logs are read: the smallest that is allowed is then no smaller than itself.
    bad = ~((propensity >= np.float32(SMALLEST_PROPENSITY)) & (propensity <= 1.0))
    if bad.any():
        raise BadPropensity(_told(propensity, target, bad))
    wrong = ~((target >= 0) & (target <= 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadPropensity(f"target: {target[row]:g} in row {row} is no probability; give the policy's own chances")
    return propensity


def _told(propensity: Floats, target: Floats, bad: NDArray[np.bool_]) -> str:
    """Return what is wrong with some propensities, and how much of the log would count without their rows."""
    row, low = int(np.flatnonzero(bad)[0]), np.fmin.reduce(propensity[bad])
    others = effective_sample(target[~bad] / propensity[~bad])
    return (
        f"propensity: {int(bad.sum()):,} of {len(bad):,} rows are not in {SMALLEST_PROPENSITY:g}..1, the first is "
        f"{propensity[row]:g} in row {row}, the smallest {low:g}; a row weighs 1/propensity. Leave such rows out (the "
        f"others count as {others:,.0f}, their effective sample), or clip them at a floor that the policy kept to"
    )


def effective_sample(weight: Floats) -> float:
    """Return how many equally weighted rows some weights count as: (sum w)^2 / sum w^2. Source: Kish 1965."""
    square = np.square(weight).sum()
    return float(weight.sum() ** 2 / square) if square > 0 else 0.0


def overlap_of(weight: Floats) -> Overlap:
    """Return the diagnostics of importance weights [N]."""
    return Overlap(
        len(weight),
        effective_sample(weight),
        float(weight.max(initial=0.0)),
        float(weight.mean()),
        float(weight.std(ddof=1) / np.sqrt(len(weight))) if len(weight) > 1 else float("nan"),
        float((weight == 0).mean()),
    )


def estimates(log: Logged, clip: float | None = None, switch: float = SWITCH) -> dict[str, Measured]:
    """Return the estimators by name, in the reward's units per row.

    IPS: mean(w r). clipped IPS: w cut at `clip`, the 99th percentile of the weights unless given (biased towards 0,
    less noisy). SNIPS: sum(w r) / sum(w). DM: mean(q target). DR: mean(q target + w (r - q shown)). switch-DR: the same
    without the correction where w > `switch`. The last three need a reward model.
    """
    weight = log.target / check_propensity(log.propensity, log.target)
    limit = float(np.quantile(weight, CLIP_QUANTILE)) if clip is None else clip
    one = np.ones(len(weight))
    found = {
        "IPS": _mean(weight * log.reward, one, log),
        "clipped IPS": _mean(np.minimum(weight, limit) * log.reward, one, log),
        "SNIPS": _mean(weight * log.reward, weight, log),
    }
    if log.expected_logged is not None and log.expected_target is not None:
        correction = weight * (log.reward - log.expected_logged)
        kept = np.where(weight <= switch, correction, 0.0)
        found["DR"] = _mean(log.expected_target + correction, one, log)
        # What the model does not know is most of DM's error, and shows in no mean of its predictions. A model of means
        # per cell errs as the doubly robust correction does (its influence function): with it 94.5% of 1,000 logs are
        # covered, without it 16.5%.
        found["DM"] = Measured(_mean(log.expected_target, one, log).value, found["DR"].sums)
        found["switch-DR"] = _mean(log.expected_target + kept, one, log)
    return found


def _mean(top: Floats, bottom: Floats, log: Logged) -> Measured:
    groups = int(log.cluster.max(initial=-1)) + 1
    sums = [np.bincount(log.cluster, weights=v, minlength=groups).astype(np.float64) for v in (top, bottom)]
    return ratio(sums[0], sums[1])


def with_interval(found: Measured, clusters: int, confidence: float) -> Interval:
    """Return an estimate with its interval."""
    if found.influence is None:
        return Interval(found.value, float("nan"), float("nan"))
    return _interval(found.value, found.influence, critical(confidence, clusters))


def _interval(value: float, influence: Floats, t: float) -> Interval:
    error, (below, above) = standard_error(influence), skewed_ends(influence, t)
    return Interval(value, value - below * error, value + above * error)


def off_policy(log: Logged, notes: tuple[str, ...] = (), confidence: float = 0.95) -> OffPolicy:
    """Return every estimate of the other policy's reward per row; `notes` join its warnings.

    Raises: NoPropensity, BadPropensity.
    """
    weight = log.target / check_propensity(log.propensity, log.target)
    found = summarize(estimates(log), _mean(log.reward, np.ones(len(weight)), log), weight, confidence)
    off = () if found.overlap.whole else tuple(name for name in found.estimates if name != "SNIPS")
    return replace(found, warnings=(*_warnings(found.overlap), *notes), off=off)


def summarize(found: Mapping[str, Measured], logged: Measured, weight: Floats, confidence: float) -> OffPolicy:
    """Return estimates with intervals, their lift over the log, and the overlap of some weights; without warnings."""
    clusters = 0 if logged.influence is None else len(logged.influence)
    return OffPolicy(
        with_interval(logged, clusters, confidence),
        {name: with_interval(m, clusters, confidence) for name, m in found.items()},
        {name: _lift(m, logged, clusters, confidence) for name, m in found.items()},
        overlap_of(weight),
        weight,
    )


def doubt_of(found: OffPolicy) -> str:
    """Return what a policy's values say against it: that all of them are below what the log earned.

    Those that are off, for their weights do not average 1, say nothing; "" where the others do not say so.
    """
    lifts = {n: lift for n, lift in found.lift.items() if np.isfinite(lift.high) and n not in found.off}
    if not lifts or max(lift.high for lift in lifts.values()) >= 0:
        return ""
    name = next((n for n in ("DR", "SNIPS") if n in lifts), next(iter(lifts)))
    lift, share = lifts[name], lifts[name].value / found.logged.value
    value = found.estimates[name].value
    change = f"change {lift.low:+.3g} to {lift.high:+.3g}"
    told = f"({name} {value:.4g} per row, the log earned {found.logged.value:.4g}, {change})"
    return f"off-policy its policy is worth {-share:.0%} less than the log's {told}"


def _lift(found: Measured, logged: Measured, clusters: int, confidence: float) -> Interval:
    value = found.value - logged.value
    if found.influence is None or logged.influence is None:
        return Interval(value, float("nan"), float("nan"))
    return _interval(value, found.influence - logged.influence, critical(confidence, clusters))


def _warnings(overlap: Overlap) -> list[str]:
    notes = []
    if overlap.effective < THIN:
        notes.append(
            f"overlap is thin: {overlap.rows:,} rows count as {overlap.effective:.0f}, the largest weight is "
            f"{overlap.largest:.3g}; trust DM and switch-DR only as far as their model, or log more exploration"
        )
    elif overlap.effective < SKEWED * overlap.rows:
        notes.append(
            f"few rows carry the weights: {overlap.rows:,} count as {overlap.effective:,.0f}, the largest weight is "
            f"{overlap.largest:.3g}; intervals of IPS, SNIPS and DR may hold the truth nearer 90% than 95% of the "
            "time then, and mostly end too low: lean on switch-DR and DM, or log more exploration"
        )
    if not overlap.whole:
        notes.append(
            f"weights average {overlap.mean:.3f}, not 1: propensities or targets are not the chances that were "
            "drawn with, or the log's policy never shows what the target would; values and lifts that are not "
            "self-normalized, and the intervals of DM, DR and switch-DR, are off by as much, and marked"
        )
    return notes
