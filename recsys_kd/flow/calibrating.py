"""A compiled student's scores of a log, and Platt scaling as the last step of them."""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from recsys_kd.compress.export import quantized
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.calibration import IDENTITY, Platt, fit_platt
from recsys_kd.distil.loop import auc
from recsys_kd.flow.probing import evenly
from recsys_kd.runtime.head import STEPS
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.tables import CompiledStudent

_SCORE_ROWS, _CALIBRATION_ROWS = 32_768, 262_144


def score_sample(
    student: CompiledStudent, dataset: Dataset, sample: NDArray[np.int64], steps: int | None = STEPS
) -> NDArray[np.float32]:
    """Return a compiled student's logits of some rows; `steps` as in `runtime.head.Head`."""
    model, items = OfflineModel(student, dataset, steps), dataset.column("item")
    parts = np.array_split(sample, max(1, len(sample) // _SCORE_ROWS))
    batches = ((dataset.batch(i, catalogue=True), items[i].astype(np.int64)) for i in parts)
    return np.concatenate([model.score_rows(batch, at) for batch, at in batches])


def served_auc(student: CompiledStudent, dataset: Dataset, sample: NDArray[np.int64]) -> float:
    """Return the AUC of a student as it will be served, coded and rounded, on some rows, each with its weight."""
    score = score_sample(quantized(student), dataset, sample)
    return auc(*(torch.from_numpy(values) for values in (score, *_truth(dataset, sample))))


def recalibrated(student: CompiledStudent, dataset: Dataset) -> CompiledStudent:
    """Return the student with Platt scaling fitted to itself on validation: pruning makes it a little too sure."""
    sample = evenly(dataset.splits["validation"], _CALIBRATION_ROWS)
    plain = calibrated(student, IDENTITY)
    return calibrated(student, fit_platt(score_sample(plain, dataset, sample), *_truth(dataset, sample)))


def _truth(dataset: Dataset, sample: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the labels and weights of some rows."""
    label, weight = (np.array(dataset.column(name)[sample], dtype=np.float32) for name in ("label", "weight"))
    return label, weight


def calibrated(student: CompiledStudent, platt: Platt) -> CompiledStudent:
    """Return the student with its calibration as the last step of scoring."""
    pair = np.array([platt.slope, platt.offset], dtype=np.float32)
    return dataclasses.replace(student, arrays={**student.arrays, "calibration": pair})
