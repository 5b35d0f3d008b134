"""What a small change of a table row costs in loss: the Gauss-Newton metric of every table, measured on a sample.

For logloss the second-order cost of moving a logit by t is p (1 - p) t^2 / 2, and a row's values move it by g . delta,
g being the logit's gradient. Averaged over lookups that gives one matrix per table, M = E[p (1 - p) g g^T]: a row that
is looked up n times and moved by delta costs about n delta^T M delta / 2 nats. Pruned rows, narrower rows and coarser
codes are then paid in one currency. Source: Optimal Brain Damage (LeCun et al., 1990), with the outer-product Hessian.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_kd.tables import Term

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """What turns sums into a logit: `first` hidden units, then the arrays of `CompiledStudent`."""

    first: int
    arrays: Mapping[str, Floats]


@dataclass
class _Moment:
    total: Doubles
    lookups: float


def logits_and_gradient(head: Head, sums: Floats) -> tuple[Doubles, Doubles]:
    """Return logits [N] and their gradient by the sums (h, S, s) [N, H + d + 1]."""
    arrays, first = head.arrays, head.first
    x = sums[:, :first] + arrays["hidden.0.bias"]
    masks = [x > 0]
    x = np.maximum(x, 0)
    depth = sum(name.startswith("hidden.") and name.endswith(".weight") for name in arrays)
    for i in range(1, depth + 1):
        x = x @ arrays[f"hidden.{i}.weight"].T + arrays[f"hidden.{i}.bias"]
        masks.append(x > 0)
        x = np.maximum(x, 0)
    factors = sums[:, first:-1].astype(np.float64)
    logit = sums[:, -1] + 0.5 * np.square(factors).sum(axis=1) + x @ arrays["out.weight"] + arrays["bias"]
    back = np.where(masks[-1], arrays["out.weight"], 0.0)
    for i in range(depth, 0, -1):
        back = np.where(masks[i - 1], back @ arrays[f"hidden.{i}.weight"], 0.0)
    return logit.astype(np.float64), np.concatenate([back, factors, np.ones((len(sums), 1))], axis=1)


class Sensitivity:
    """Gathers every table's metric from batches of scored rows."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._moments: dict[str, _Moment] = {}

    def add(self, parts: Mapping[Term, Floats], lengths: Mapping[str, NDArray[np.int64]], weight: Floats) -> None:
        """Take what every term added to (h, S, s) [N, H + d + 1], bags' lengths by field, and sample weights [N]."""
        sums = np.sum(list(parts.values()), axis=0)
        logit, gradient = logits_and_gradient(self.head, sums)
        p = 1.0 / (1.0 + np.exp(-logit))
        cost = p * (1 - p) * weight
        for term, part in parts.items():
            if term.view is not None:
                self._add_term(term, part, gradient, cost, lengths.get(term.field))

    def _add_term(
        self, term: Term, part: Floats, gradient: Doubles, cost: Doubles, lengths: NDArray[np.int64] | None
    ) -> None:
        first = self.head.first
        if term.layout == "folded":
            g = gradient
        else:
            # The row holds (e, linear): it adds W e to h, e to S and linear - |e|^2 / 2 to s.
            by_e = gradient[:, :first] @ self.head.arrays[f"first.{term.name}"] + gradient[:, first:-1]
            g = np.concatenate([by_e - part[:, first:-1], np.ones((len(part), 1))], axis=1)
        lookups = float(len(part))
        if lengths is not None:
            # One of L pooled rows moves the mean by a Lth: squared, and L lookups of it.
            cost = cost / np.maximum(lengths, 1) * (lengths > 0)
            lookups = float(lengths.sum())
        found = self._moments.setdefault(term.view or "", _Moment(np.zeros((g.shape[1], g.shape[1])), 0.0))
        found.total += (g * cost[:, None]).T @ g
        found.lookups += lookups

    def metrics(self) -> dict[str, Doubles]:
        """Return M [dim, dim] per view: the mean over its lookups."""
        return {name: m.total / max(m.lookups, 1.0) for name, m in self._moments.items()}
