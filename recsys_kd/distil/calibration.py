"""Platt scaling of teacher logits: sigmoid(a * logit + b) fitted to labels by Newton's method.

A teacher that is trained on fewer days, or with regularization, is over- or under-confident; its soft labels are put
right before a student sees them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Platt:
    """calibrated logit = slope * logit + offset."""

    slope: float
    offset: float

    def __call__(self, logit: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return calibrated logits, same shape."""
        return (self.slope * logit + self.offset).astype(np.float32)


Doubles = NDArray[np.float64]
IDENTITY = Platt(1.0, 0.0)


def fit_platt(
    logit: NDArray[np.float32], label: NDArray[np.float32], weight: NDArray[np.float32], steps: int = 50
) -> Platt:
    """Return the maximum-likelihood slope and offset; logit, label and sample weight [N], label in [0, 1].

    A slope that is not positive would turn the ranking round, and a set with one class has no optimum: both give the
    identity. Source: Platt 1999; Newton's method on the 2x2 Hessian, each step halved until the loss falls (far-off
    logits and rare clicks made whole steps run away, Lin et al., Machine Learning 68, 2007).
    """
    counted = weight > 0
    x, y, n = (a[counted].astype(np.float64) for a in (logit, label, weight))
    if len(x) == 0 or y.min() == y.max() or x.std() == 0:
        return IDENTITY
    theta = np.array([1.0, 0.0])
    loss = _loss(theta, x, y, n)
    for _ in range(steps):
        step = _newton_step(theta, x, y, n)
        while (tried := _loss(theta - step, x, y, n)) > loss and np.abs(step).max() > 1e-10:
            step = step / 2
        if not tried < loss:
            break
        theta, loss = theta - step, tried
    return Platt(float(theta[0]), float(theta[1])) if theta[0] > 0 and np.isfinite(theta).all() else IDENTITY


def _loss(theta: Doubles, x: Doubles, y: Doubles, n: Doubles) -> float:
    """Return the weighted sum of binary cross-entropies, nats."""
    z = theta[0] * x + theta[1]
    return float(np.dot(n, np.logaddexp(0.0, z) - y * z))


def _newton_step(theta: Doubles, x: Doubles, y: Doubles, n: Doubles) -> Doubles:
    p = 1.0 / (1.0 + np.exp(-np.clip(theta[0] * x + theta[1], -40, 40)))
    gradient = np.array([np.dot(n * (p - y), x), np.dot(n, p - y)])
    w = n * (p * (1 - p) + 1e-12)
    hessian = np.array([[np.dot(w * x, x), np.dot(w, x)], [np.dot(w, x), w.sum()]])
    step: Doubles = np.linalg.solve(hessian + 1e-9 * np.eye(2) * np.trace(hessian), gradient)
    return step
