"""How sure: p-values, Holm, power, the smallest effect that a log can show, and whether its groups have their share."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, nctdtr, nctdtrinc, stdtr, stdtrit  # type: ignore[import-untyped]

from recsys_kd.errors import InputError

Floats = NDArray[np.float64]
BROKEN_SPLIT = 0.001
"""p-value of the sample-ratio check below which groups are not to be compared. Source: Fabijan et al. 2019."""


class BadShares(InputError):
    """Groups and the shares they were promised do not belong together."""


def critical(confidence: float, users: int) -> float:
    """Return the two-sided critical value of Student's t with users - 1 degrees of freedom: slices have few users."""
    return float(stdtrit(users - 1, 0.5 + confidence / 2)) if users > 1 else float("nan")


def skewed_ends(influence: Floats, t: float) -> tuple[float, float]:
    """Return how many standard errors an interval reaches below a value and above it, for t on either side.

    influence: how much each of n users moves the value. Few users with much influence make its distribution skewed:
    a symmetric interval ends too early on their side. Hall's transformation removes the skewness up to 1/n, and is
    t and t where there is none. Source: Hall 1992, "On the removal of skewness by transformation".
    """
    square = float(np.square(influence).mean()) if len(influence) else 0.0
    if square == 0.0:
        return t, t
    skew = float((influence**3).mean()) / square**1.5 / np.sqrt(len(influence))
    if abs(skew) < 1e-9:
        return t, t
    below, above = (3.0 / skew * (np.cbrt(1.0 + skew * (side - skew / 6.0)) - 1.0) for side in (t, -t))
    return float(below), float(-above)


def p_value(value: float, error: float, users: int) -> float:
    """Return the two-sided p-value of value = 0; 1 where nothing differs, NaN where the error is unknown."""
    if value == 0.0 and error == 0.0:
        return 1.0
    if error == 0.0:
        return 0.0
    return float(2.0 * stdtr(users - 1, -abs(value) / error)) if users > 1 else float("nan")


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that rejecting those below alpha keeps the family's error at alpha; NaN stays NaN.

    Source: Holm 1979; valid under any dependence between the tests.
    """
    values = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    stepped = values[order] * np.arange(len(order), 0, -1)
    out = np.full(len(values), np.nan)
    out[order] = np.minimum(np.maximum.accumulate(stepped), 1.0) if len(order) else stepped
    return [float(v) for v in out]


def power_at(effect: float, error: float, confidence: float, users: int) -> float:
    """Return the chance that an effect of this size is found significant, either way, by the two-sided t-test.

    The statistic is noncentral t with users - 1 degrees of freedom, as the intervals are Student's.
    """
    if error == 0.0:
        return 1.0
    t, shift = critical(confidence, users), abs(effect) / error
    # Far out the other tail is nothing, and SciPy says NaN.
    return float(1.0 - nctdtr(users - 1, shift, t) + np.nan_to_num(nctdtr(users - 1, shift, -t)))


def smallest_effect(error: float, confidence: float, power: float, users: int) -> float:
    """Return the effect that would be found with this power (minimum detectable effect): 2.80 errors of many users at
    95% and 80%, 3.15 of ten, 16 of two. NaN below two users.
    """
    if users < 2:
        return float("nan")
    return float(nctdtrinc(users - 1, 1.0 - power, critical(confidence, users)) * error)


def clusters_needed(clusters: int, effect: float, error: float, confidence: float, power: float) -> int:
    """Return how many such clusters would show this effect with this power: errors shrink with their square root, and
    Student's t nears the normal.
    """
    needed = clusters
    for _ in range(8):
        each = smallest_effect(error, confidence, power, max(needed, 2))
        needed = int(np.ceil(clusters * (each / effect) ** 2))
    return max(needed, 2)


def sample_ratio(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """Return the p-value of groups having had their promised shares (chi-square); below BROKEN_SPLIT it is broken.

    Raises: BadShares where names differ or a share is not positive. Source: Fabijan et al. 2019.
    """
    if set(counts) != set(shares):
        raise BadShares(f"groups {sorted(counts)} and shares for {sorted(shares)}: give one share for every group")
    for name, share in shares.items():
        if not share > 0:
            raise BadShares(f"share of '{name}' is {share:g}; shares are above 0")
    total, whole = sum(counts.values()), sum(shares.values())
    expected = {name: total * share / whole for name, share in shares.items()}
    if total == 0:
        raise BadShares("no user in any group; give a log with users")
    statistic = sum((counts[n] - expected[n]) ** 2 / expected[n] for n in counts)
    return float(chdtrc(len(counts) - 1, statistic)) if len(counts) > 1 else 1.0
