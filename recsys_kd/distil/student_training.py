"""Train a student, with or without a teacher's soft labels.

The control is the same call without soft labels: same size, same seed, same rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_kd.batch import Batch
from recsys_kd.distil.checkpoint import Checkpoints, Resume
from recsys_kd.distil.loop import Fit, train, validation_metrics
from recsys_kd.distil.losses import hard_bce, soft_bce
from recsys_kd.models.source import RowSource
from recsys_kd.models.student import Logits, Student
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import DistilConfig, StudentConfig


@dataclass(frozen=True)
class SoftBatch:
    """Rows and the teacher's logits for them [B], NaN where the teacher never scored a row."""

    batch: Batch
    teacher: Tensor | None

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True)
class FittedStudent:
    """The best epoch's student and how it got there."""

    model: Student
    fit: Fit


class _Optimizers:
    """Adam for the dense part, lazy Adam for the tables: only rows of the batch are touched."""

    def __init__(self, model: Student, lr: float) -> None:
        tables = list(model.tables.parameters())
        inside = {id(p) for p in tables}
        self.sparse = torch.optim.SparseAdam(tables, lr=lr)
        self.dense = torch.optim.Adam([p for p in model.parameters() if id(p) not in inside], lr=lr)

    def step(self, loss: Tensor) -> None:
        for optimizer in (self.sparse, self.dense):
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.dense.step()
        self.sparse.step()  # type: ignore[no-untyped-call]


def soft_batches(
    source: RowSource, rows: range, size: int, seed: int, soft: NDArray[np.float32] | None, skip: int = 0
) -> Iterator[SoftBatch]:
    """Yield the range's rows shuffled by `seed`, less `skip` batches; `soft` is aligned with the source."""
    order = np.random.default_rng(seed).permutation(len(rows)) + rows.start
    for start in range(skip * size, len(order), size):
        index = order[start : start + size]
        teacher = None if soft is None else torch.from_numpy(soft[index])
        yield SoftBatch(source.batch(index), teacher)


def student_loss(model: Student, item: SoftBatch, config: StudentConfig, distil: DistilConfig) -> Tensor:
    """Return L_hard + weight * L_teacher + l2 * |rows|^2 for one batch."""
    logits: Logits = model(item.batch)
    label, weight = torch.from_numpy(item.batch.label), torch.from_numpy(item.batch.weight)
    loss = hard_bce(logits.serving, label, weight) + config.embedding_l2 * logits.penalty
    if item.teacher is None:
        return loss
    known = torch.isfinite(item.teacher)
    teacher = torch.where(known, item.teacher, 0.0)
    head = logits.auxiliary if distil.head == "auxiliary" else logits.serving
    return loss + distil.weight * soft_bce(head, teacher, weight * known, distil.temperature)


def fit_student(  # noqa: PLR0913 - one call site per model; a bag of options would only hide the names
    source: RowSource,
    config: StudentConfig,
    distil: DistilConfig,
    soft: NDArray[np.float32] | None,
    *,
    rows: range,
    validation: range,
    seed: int,
    progress: Progress = SILENT,
    name: str = "student",
    checkpoints: Checkpoints | None = None,
) -> FittedStudent:
    """Train on `rows` until the validation logloss stops falling; deterministic for a seed.

    `soft`: calibrated teacher logits per row of the source, NaN where there are none; None trains the control.
    """
    torch.manual_seed(seed)
    model = Student(source.schema, config)
    optimizers = _Optimizers(model, config.lr)

    def step(item: SoftBatch) -> float:
        model.train()
        loss = student_loss(model, item, config, distil)
        optimizers.step(loss)
        return float(loss.detach())

    fit = train(
        model,
        step,
        lambda epoch, skip: soft_batches(source, rows, config.batch_size, seed * 1000 + epoch, soft, skip),
        lambda: validation_metrics(model, source, validation),
        epochs=config.epochs,
        patience=config.patience,
        rows=len(rows),
        progress=progress,
        name=name,
        resume=Resume(checkpoints, [optimizers.sparse, optimizers.dense]) if checkpoints else None,
    )
    return FittedStudent(model, fit)
