"""What a metric needs of each user: a few sums, whose totals give the metric.

Every metric here is a smooth function of degree 0 of totals over users (a ratio, mostly). So a replicate of a bootstrap
over users is a weighted sum of rows of one small matrix, and the delta method is one product with the gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UserSums:
    """columns [users, c]; `of` turns totals [..., c] into the metric [...]; gradient [c] is of `of` at the totals."""

    columns: Floats
    of: Callable[[Floats], Floats]
    gradient: Floats

    @cached_property
    def influence(self) -> Floats:
        """How much each user moves the metric [users]; sums to 0."""
        return np.asarray(self.columns @ self.gradient, dtype=np.float64)


@dataclass(frozen=True)
class Measured:
    """A metric's value and what it is made of; no sums where the metric has no such form."""

    value: float
    sums: UserSums | None
    bias: float = 0.0
    """How far chance alone may lift the value above the truth, on average: its interval begins that much lower."""

    @property
    def influence(self) -> Floats | None:
        """How much each user moves the value [users]."""
        return None if self.sums is None else self.sums.influence

    @property
    def standard_error(self) -> float:
        """Cluster-robust standard error, NaN where unknown."""
        return float("nan") if self.influence is None else standard_error(self.influence)

    def ends(self, z: float) -> tuple[float, float]:
        """Return the interval's ends at z standard errors; a value that chance lifts (ECE) is never below 0."""
        half = z * self.standard_error
        low = self.value - self.bias - half
        return (max(low, 0.0) if self.bias else low), self.value + half


UNDEFINED = Measured(float("nan"), None)


def standard_error(influence: Floats) -> float:
    """Return the cluster-robust standard error of a metric from its users' influence; NaN below two users."""
    groups = len(influence)
    if groups < 2:
        return float("nan")
    return float(np.sqrt(groups / (groups - 1) * np.square(influence).sum()))


def ratio_of(totals: Floats) -> Floats:
    """Return the first total over the second."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(totals[..., 0] / totals[..., 1], dtype=np.float64)


def ratio(numerator: Floats, denominator: Floats) -> Measured:
    """Return sum(numerator) / sum(denominator), both [users]; UNDEFINED where the denominator is 0."""
    top, bottom = numerator.sum(), denominator.sum()
    if bottom == 0:
        return UNDEFINED
    gradient = np.array([1.0 / bottom, -top / bottom**2])
    return Measured(float(top / bottom), UserSums(np.stack([numerator, denominator], axis=1), ratio_of, gradient))
