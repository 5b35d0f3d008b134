"""Train a student, with or without a teacher's soft labels.

The control is the same call without soft labels: same size, same seed, same rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_kd.batch import Batch
from recsys_kd.distil.batch_size import batch_rows
from recsys_kd.distil.checkpoint import Checkpoints, Resume
from recsys_kd.distil.heads import SERVING_ALONE, Mix, both_heads, fit_mix, mixed_metrics
from recsys_kd.distil.hints import Hints
from recsys_kd.distil.loop import SCORE_ROWS, Fit, train, validation_metrics
from recsys_kd.distil.objective import objective, shuffled
from recsys_kd.models.features import FeatureTeacher
from recsys_kd.models.gradients import descend, is_sparse
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
    """The best epoch's student, how it got there, and what its serving head has become of both heads."""

    model: Student
    fit: Fit
    mix: Mix


def optimizers(model: Student, lr: float, hints: Hints | None = None) -> list[torch.optim.Optimizer]:
    """Return Adam for whatever has a dense gradient and, for large tables, lazy Adam: only touched rows move."""
    large = [table for table in model.tables.parameters() if is_sparse(table)]
    inside = {id(p) for p in large}
    rest = [p for p in model.parameters() if id(p) not in inside]
    dense = torch.optim.Adam([*rest, *(hints.parameters() if hints else ())], lr=lr, fused=True)
    return [dense, torch.optim.SparseAdam(large, lr=lr)] if large else [dense]


def soft_batches(
    source: RowSource,
    rows: NDArray[np.int64],
    size: int,
    seed: int,
    soft: NDArray[np.float32] | None,
    whole: bool = False,
    skip: int = 0,
) -> Iterator[SoftBatch]:
    """Yield the rows shuffled by `seed`, less `skip` batches; `soft` is aligned with the source's rows.

    `whole`: batches hold whole requests.
    """
    requests = source.column("request") if whole else None
    for index in islice(shuffled(rows, size, seed, requests), skip, None):
        teacher = None if soft is None else torch.from_numpy(soft[index])
        yield SoftBatch(source.batch(index), teacher)


def make_hints(
    model: Student, teacher: FeatureTeacher | None, source: RowSource, rows: NDArray[np.int64]
) -> Hints | None:
    """Return the projections to a teacher's features, their spread that of some rows; None without a teacher."""
    if teacher is None:
        return None
    sample = source.batch(rows[:: max(1, -(-len(rows) // SCORE_ROWS))])
    with torch.no_grad():
        return Hints(teacher, model.eval()(sample).features, sample)


def fit_student(  # noqa: PLR0913 - one call site per model; a bag of options would only hide the names
    source: RowSource,
    config: StudentConfig,
    distil: DistilConfig,
    soft: NDArray[np.float32] | None,
    *,
    rows: range | NDArray[np.int64],
    validation: range,
    seed: int,
    progress: Progress = SILENT,
    name: str = "student",
    checkpoints: Checkpoints | None = None,
    teacher: FeatureTeacher | None = None,
    start: Callable[[Student], None] | None = None,
) -> FittedStudent:
    """Train on `rows` until the validation logloss stops falling; deterministic for a seed.

    `soft`: calibrated teacher logits per row of the source, NaN where there are none; None trains the control.
    `teacher`: what shows its features to the terms that need them. `start`: puts into a student made by chance what
    it is to start from.
    """
    torch.manual_seed(seed)
    model = Student(source.schema, config)
    if start is not None:
        start(model)
    index = np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows
    hints = make_hints(model, teacher, source, index)
    optimized = optimizers(model, config.lr, hints)
    whole, size = soft is not None and distil.over_requests, batch_rows(config.batch_size, len(source))
    projections = dict(hints.named_parameters()) if hints else {}
    two_heads = soft is not None and distil.teaches_auxiliary and bool(np.isfinite(soft[index]).any())
    metrics = mixed_metrics if two_heads else validation_metrics

    def step(item: SoftBatch) -> float:
        model.train()
        logits: Logits = model(item.batch)
        loss = objective(logits, item.batch, item.teacher, distil, hints, config.embedding_l2)
        descend(loss, optimized)
        return float(loss.detach())

    fit = train(
        model,
        step,
        lambda epoch, skip: soft_batches(source, index, size, seed * 1000 + epoch, soft, whole, skip),
        lambda: metrics(model, source, validation),
        epochs=config.epochs,
        patience=config.patience,
        rows=len(index),
        progress=progress,
        name=name,
        resume=Resume(checkpoints, optimized, lambda: projections) if checkpoints else None,
    )
    if not two_heads:
        return FittedStudent(model, fit, SERVING_ALONE)
    mix = fit_mix(both_heads(model, source, validation), model.wide_scale)
    progress.note(f"{name}: {mix.told()}")
    model.mix_heads(mix.serving, mix.auxiliary)
    return FittedStudent(model, fit, mix)
