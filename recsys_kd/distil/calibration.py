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
    x, y, n = _counted(logit, label, weight)
    if len(x) == 0 or y.min() == y.max() or x.std() == 0:
        return IDENTITY
    return _platt(_minimum(_Problem(x, y, n, np.array([1.0, 0.0]), np.zeros((2, 2))), steps), IDENTITY)


def fit_towards(
    logit: NDArray[np.float32],
    label: NDArray[np.float32],
    weight: NDArray[np.float32],
    centre: Platt,
    precision: Doubles,
    steps: int = 50,
) -> Platt:
    """Return the most likely slope and offset, given rows and that they are normal about `centre`, precision [2, 2].

    Without rows, and where the slope would not be positive, that is `centre`.
    """
    problem = _Problem(*_counted(logit, label, weight), np.array([centre.slope, centre.offset]), precision)
    return _platt(_minimum(problem, steps), centre) if len(problem.x) else centre


def information(platt: Platt, logit: NDArray[np.float32], weight: NDArray[np.float32]) -> Doubles:
    """Return the information that rows [N] hold about a slope and offset [2, 2]: the Hessian of their loss."""
    x, n = logit.astype(np.float64), weight.astype(np.float64)
    return _hessian(x, n, _probability(np.array([platt.slope, platt.offset]), x))


@dataclass(frozen=True)
class _Problem:
    """Rows x, labels y and weights n [N], and a normal prior about `centre` [2]."""

    x: Doubles
    y: Doubles
    n: Doubles
    centre: Doubles
    precision: Doubles

    def loss(self, theta: Doubles) -> float:
        """Return the weighted sum of binary cross-entropies less the prior's logarithm, nats."""
        z, off = theta[0] * self.x + theta[1], theta - self.centre
        return float(np.dot(self.n, np.logaddexp(0.0, z) - self.y * z)) + float(off @ self.precision @ off) / 2

    def step(self, theta: Doubles) -> Doubles:
        """Return Newton's step [2]."""
        p = _probability(theta, self.x)
        gradient = np.array([np.dot(self.n * (p - self.y), self.x), np.dot(self.n, p - self.y)])
        hessian = _hessian(self.x, self.n, p) + self.precision
        gradient = gradient + self.precision @ (theta - self.centre)
        step: Doubles = np.linalg.solve(hessian + 1e-9 * np.eye(2) * np.trace(hessian), gradient)
        return step


def _minimum(problem: _Problem, steps: int) -> Doubles:
    """Return the slope and offset [2] of least loss, from the prior's centre on."""
    theta = problem.centre
    loss = problem.loss(theta)
    for _ in range(steps):
        step = problem.step(theta)
        while (tried := problem.loss(theta - step)) > loss and np.abs(step).max() > 1e-10:
            step = step / 2
        if not tried < loss:
            break
        theta, loss = theta - step, tried
    return theta


def _platt(theta: Doubles, otherwise: Platt) -> Platt:
    return Platt(float(theta[0]), float(theta[1])) if theta[0] > 0 and np.isfinite(theta).all() else otherwise


def _counted(*columns: NDArray[np.float32]) -> tuple[Doubles, Doubles, Doubles]:
    logit, label, weight = (a[columns[2] > 0].astype(np.float64) for a in columns)
    return logit, label, weight


def _probability(theta: Doubles, x: Doubles) -> Doubles:
    p: Doubles = 1.0 / (1.0 + np.exp(-np.clip(theta[0] * x + theta[1], -40, 40)))
    return p


def _hessian(x: Doubles, n: Doubles, p: Doubles) -> Doubles:
    w = n * (p * (1 - p) + 1e-12)
    return np.array([[np.dot(w * x, x), np.dot(w, x)], [np.dot(w, x), w.sum()]])
