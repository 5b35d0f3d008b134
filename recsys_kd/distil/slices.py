"""Calibration of soft labels slice by slice: a teacher may be right on the whole and wrong on tablets.

Every slice gets a slope and an offset of its own, drawn towards those of all rows as if it had `PRIOR_ROWS` more rows
that agree with them: a slice of 100 rows keeps about a tenth of what it says, one of 100,000 nearly all.
"""

import numpy as np
from numpy.typing import NDArray

from recsys_kd.distil.calibration import fit_platt, fit_towards, information

Floats = NDArray[np.float32]
PRIOR_ROWS = 1000.0
"""In units of sample weight."""


def calibrate_slices(
    logit: Floats, label: Floats, weight: Floats, slices: NDArray[np.int64], prior: float = PRIOR_ROWS
) -> Floats:
    """Return logits calibrated by slice, all inputs [N]; `slices` is any code. Rows of weight 0 fit nothing."""
    overall = fit_platt(logit, label, weight)
    counted = weight > 0
    if not counted.any():
        return overall(logit)
    one = information(overall, logit[counted], weight[counted]) / float(weight[counted].sum(dtype=np.float64))
    out = np.empty_like(logit)
    order = np.argsort(slices, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(slices[order])) + 1):
        fitted = fit_towards(logit[rows], label[rows], weight[rows], overall, prior * one)
        out[rows] = fitted(logit[rows])
    return out
