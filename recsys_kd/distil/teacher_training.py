"""Train a teacher: tables by the optimizer inside backward, the rest by Adam, until validation stops improving."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recsys_kd.batch import Batch
from recsys_kd.distil.batch_size import batch_rows
from recsys_kd.distil.checkpoint import Checkpoints, Resume
from recsys_kd.distil.loop import Fit, train, validation_metrics
from recsys_kd.distil.losses import hard_bce
from recsys_kd.models.source import RowSource
from recsys_kd.models.teacher import Teacher
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import TeacherConfig


@dataclass(frozen=True)
class FittedTeacher:
    """The best epoch's teacher and how it got there."""

    model: Teacher
    fit: Fit


class TeacherStep:
    """One optimization step; the same for fused and for sharded tables."""

    def __init__(self, model: Teacher, config: TeacherConfig, forward: torch.nn.Module | None = None) -> None:
        self.model = model
        self.forward = forward or model
        self.optimizer = torch.optim.Adam(model.dense_parameters(), lr=config.dense_lr, fused=True)

    def __call__(self, batch: Batch) -> float:
        """Train on one batch and return its mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        logit = self.forward(self.model.lookup_input(batch), self.model.numbers(batch))
        loss = hard_bce(logit, torch.from_numpy(batch.label), torch.from_numpy(batch.weight))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())


def fit_teacher(
    source: RowSource,
    config: TeacherConfig,
    rows: range | NDArray[np.int64],
    validation: range,
    seed: int,
    progress: Progress = SILENT,
    name: str = "teacher",
    checkpoints: Checkpoints | None = None,
) -> FittedTeacher:
    """Train on `rows`, early-stopped on `validation`; deterministic for a seed and a number of threads."""
    torch.manual_seed(seed)
    index = np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows
    model = Teacher(source.schema, config)
    step, size = TeacherStep(model, config), batch_rows(config.batch_size, len(source))

    def batches(epoch: int, skip: int) -> Iterator[Batch]:
        order = np.random.default_rng(seed * 1000 + epoch).permutation(index)
        for start in range(skip * size, len(order), size):
            yield source.batch(order[start : start + size])

    fit = train(
        model,
        step,
        batches,
        lambda: validation_metrics(model, source, validation),
        epochs=config.epochs,
        patience=config.patience,
        rows=len(index),
        progress=progress,
        name=name,
        resume=Resume(checkpoints, [step.optimizer], model.moments) if checkpoints else None,
    )
    return FittedTeacher(model, fit)
