"""Several teachers as one label: the mean of their logits, or a mean whose weights a gate chooses for every sample.

The gate's weights are softmax(A [1, z]) of the members' own logits z: it can tell where one of them is to be believed,
such as the bolder for sure clicks. It is fitted by labels on the rows that the members score without having learned
them, as Platt scaling is: M (M + 1) numbers against all those rows. A = 0 is the mean, and the ridge draws towards it.
Source: mixture of experts, Jacobs et al., Neural Computation 3, 1991.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_kd.distil.calibration import Platt, fit_platt
from recsys_kd.distil.losses import hard_bce

Floats = NDArray[np.float32]
PRIOR_ROWS = 100.0
"""The ridge: an element of A costs half its square, as much as so many rows' worth of nats."""
_FIT_ROWS = 262_144


@dataclass(frozen=True)
class Gate:
    """matrix: A [M, M + 1]. centre: the Platt scaling of the members' mean, which puts all their logits right."""

    matrix: NDArray[np.float64]
    centre: Platt

    def weights(self, logits: Floats) -> NDArray[np.float64]:
        """Return what every member [N, M] counts, rows summing to 1."""
        z = torch.from_numpy(self.centre(logits).astype(np.float64))
        found: NDArray[np.float64] = _weights(torch.from_numpy(self.matrix), z).numpy()
        return found

    def __call__(self, logits: Floats) -> Floats:
        """Return the mixed logits [N] of the members' [N, M], calibrated."""
        mixed: Floats = (self.weights(logits) * self.centre(logits)).sum(axis=1).astype(np.float32)
        return mixed


def fit_gate(logits: Floats, label: Floats, weight: Floats, prior: float = PRIOR_ROWS) -> Gate:
    """Return the gate of least loss; members' logits [N, M] of rows they have not learned, label and weight [N]."""
    members = logits.shape[1]
    rows = np.flatnonzero(weight > 0)
    rows = rows[:: max(1, -(-len(rows) // _FIT_ROWS))]
    centre = fit_platt(logits[rows].mean(axis=1), label[rows], weight[rows])
    start = np.zeros((members, members + 1))
    if not len(rows):
        return Gate(start, centre)
    z, y, n = (torch.from_numpy(a.astype(np.float64)) for a in (centre(logits[rows]), label[rows], weight[rows]))
    matrix = torch.from_numpy(start).requires_grad_()
    optimizer = torch.optim.LBFGS([matrix], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        mixed = (_weights(matrix, z) * z).sum(1)
        found = hard_bce(mixed, y, n) + prior / float(n.sum()) * matrix.square().sum() / 2
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted = matrix.detach().numpy()
    return Gate(fitted if np.isfinite(fitted).all() else start, centre)


def _weights(matrix: Tensor, z: Tensor) -> Tensor:
    """Return softmax(A [1, z]) [N, M]."""
    return torch.softmax(matrix[:, 0] + z @ matrix[:, 1:].T, dim=1)
