"""Structured pruning of hidden units: which of them cost least to lose, and the student without them.

A unit that always gives its mean m instead of its activation x moves the logit by g (x - m), g being the logit's
gradient; for logloss that costs p (1 - p) g^2 (x - m)^2 / 2, the second-order Taylor score. What m adds goes into the
next layer's bias, so that only what varies is lost. Source: Molchanov et al., arXiv 1906.10771, with the Gauss-Newton
Hessian that rows are weighed by.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.sensitivity import Head
from recsys_kd.tables import StudentWeights

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """Of one layer: nats per row that losing each unit costs, and its mean activation [units]."""

    cost: Doubles
    mean: Doubles


def unit_costs(head: Head, sums: Floats, weight: Floats) -> list[Units]:
    """Return every layer's units, from (h, S, s) [N, H + d + 1] and sample weights [N] of some rows."""
    arrays, first = head.arrays, head.first
    activations = [np.maximum(sums[:, :first] + arrays["hidden.0.bias"], 0).astype(np.float64)]
    while (name := f"hidden.{len(activations)}") + ".weight" in arrays:
        activations.append(np.maximum(activations[-1] @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"], 0))
    factors = sums[:, first:-1].astype(np.float64)
    wide = sums[:, -1] + 0.5 * np.square(factors).sum(axis=1)
    logit = wide + activations[-1] @ arrays["out.weight"] + arrays["bias"]
    p = 1.0 / (1.0 + np.exp(-logit))
    share = weight / max(float(weight.sum()), 1e-12)
    back = np.broadcast_to(arrays["out.weight"].astype(np.float64), activations[-1].shape)
    found = []
    for i in range(len(activations) - 1, -1, -1):
        x = activations[i]
        mean = share @ x
        found.append(Units(0.5 * (share * p * (1 - p)) @ np.square(back * (x - mean)), mean))
        if i:
            back = np.where(x > 0, back, 0.0) @ arrays[f"hidden.{i}.weight"]
    return found[::-1]


def without_units(weights: StudentWeights, units: Sequence[Units], share: float) -> tuple[StudentWeights, float]:
    """Return a student with `share` of every layer's units, at least one, the dearest; and the nats it has lost."""
    arrays, last, lost = dict(weights.arrays), len(units) - 1, 0.0
    for i, layer in enumerate(units):
        count = max(1, round(share * len(layer.cost)))
        keep = np.sort(np.argsort(-layer.cost, kind="stable")[:count])
        lost += float(layer.cost.sum() - layer.cost[keep].sum())
        constant = layer.mean.copy()
        constant[keep] = 0.0
        for name in [n for n in arrays if n.startswith("first.")] if i == 0 else [f"hidden.{i}.weight"]:
            arrays[name] = arrays[name][keep]
        arrays[f"hidden.{i}.bias"] = arrays[f"hidden.{i}.bias"][keep]
        after, bias = ("out.weight", "bias") if i == last else (f"hidden.{i + 1}.weight", f"hidden.{i + 1}.bias")
        arrays[bias] = (arrays[bias] + arrays[after] @ constant).astype(np.float32)
        arrays[after] = np.ascontiguousarray(arrays[after][..., keep])
    return replace(weights, first=len(arrays["hidden.0.bias"]), arrays=arrays), lost


def some_units(weights: StudentWeights, share: float) -> StudentWeights:
    """Return a student with the first `share` of every layer's units: it weighs what one with the dearest does."""
    sizes = [len(a) for name, a in weights.arrays.items() if name.startswith("hidden.") and name.endswith(".bias")]
    return without_units(weights, [Units(np.ones(n), np.zeros(n)) for n in sizes], share)[0]
