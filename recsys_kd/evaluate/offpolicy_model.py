"""A reward model for the direct method: mean reward per context cell and action, shrunk, and cross-fitted.

No row is predicted by a model that learned from its own cluster: clusters are dealt into folds, and a fold's rows are
predicted from the others'.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FOLDS, PRIOR = 5, 20.0


@dataclass(frozen=True)
class Fitted:
    """Expected reward of what was shown [N], and of what the target policy would show [N]."""

    logged: Floats
    target: Floats


def fit_rewards(
    reward: Floats, cell: Ints, action: Ints, cluster: Ints, policy: Floats, folds: int = FOLDS, prior: float = PRIOR
) -> Fitted:
    """Return cross-fitted expected rewards. cell: dense context number [N] (a position, say); action: dense [N].

    policy: the target's chances [cells, actions], rows summing to 1. A cell's action is its mean reward, drawn towards
    the cell's mean by `prior` rows of it.
    """
    cells, actions = policy.shape
    fold = (np.unique(cluster, return_inverse=True)[1] * 7919) % folds
    at = cell * actions + action
    logged, target = np.empty(len(reward)), np.empty(len(reward))
    total = _table(at, reward, cells, actions)
    count = _table(at, np.ones(len(reward)), cells, actions)
    for f in range(folds):
        mine = fold == f
        clicks = total - _table(at[mine], reward[mine], cells, actions)
        rows = count - _table(at[mine], np.ones(int(mine.sum())), cells, actions)
        level = clicks.sum(axis=1, keepdims=True) / np.maximum(rows.sum(axis=1, keepdims=True), 1.0)
        q = (clicks + prior * level) / (rows + prior)
        logged[mine] = q.ravel()[at[mine]]
        target[mine] = (policy * q).sum(axis=1)[cell[mine]]
    return Fitted(logged, target)


def _table(at: Ints, values: Floats, cells: int, actions: int) -> Floats:
    return np.bincount(at, weights=values, minlength=cells * actions).astype(np.float64).reshape(cells, actions)
