"""The training loop that teacher and student share: epochs, early stopping, and the best state at the end.

The best epoch is the one with the highest validation AUC (lowest loss where one class is missing): embeddings start to
overfit at the second epoch (arXiv 2209.06053), so one epoch may well be it. Calibration is put right afterwards.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import chain
from math import isfinite, nan
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys_kd.batch import RankingModel
from recsys_kd.distil.checkpoint import Resume, part, resumed
from recsys_kd.distil.losses import hard_bce
from recsys_kd.errors import InputError
from recsys_kd.models.source import RowSource
from recsys_kd.progress import Progress


class Sized(Protocol):
    """A batch of any form: it has a number of rows."""

    def __len__(self) -> int: ...


B = TypeVar("B", bound=Sized)
SCORE_ROWS = 16_384
"""Rows per batch when only scoring."""


class TrainingDiverged(InputError):
    """The loss became NaN or infinite."""

    def __init__(self, name: str, epoch: int, loss: float) -> None:
        super().__init__(
            f"{name}: the loss is {loss} in epoch {epoch + 1}; lower its learning rate, or look for huge dense values"
        )


class NothingToTrainOn(InputError):
    """An epoch yielded no rows."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: there are no training rows; widen the window or shorten validation and test days")


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows gave; losses in nats per row."""

    index: int
    train_loss: float
    validation_loss: float
    validation_auc: float
    rows_per_second: float


@dataclass(frozen=True)
class Fit:
    """All epochs that ran, and the index of the one whose state was kept."""

    epochs: tuple[Epoch, ...]
    best: int


class Snapshot:
    """A copy of a model's parameters and buffers (of this rank's shards, where it is sharded)."""

    def __init__(self, model: nn.Module, copies: list[Tensor] | None = None) -> None:
        self.copies = [tensor.detach().clone() for tensor in _state(model)] if copies is None else copies

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Write the copies back into the same model, in place."""
        for tensor, copy in zip(_state(model), self.copies, strict=True):
            tensor.detach().copy_(copy)


def _state(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.numel()]


def auc(score: Tensor, label: Tensor, weight: Tensor | None = None) -> float:
    """Return the area under the ROC curve; score and label [N], label > 0.5 is positive, ties count half.

    A pair of a positive and a negative counts as much as the product of their weights [N]; 1 where absent. NaN where
    one class is missing. Source: Mann-Whitney U, in float64.
    """
    counted = torch.ones(len(label), dtype=torch.float64) if weight is None else weight.double()
    _, group = torch.unique(score, sorted=True, return_inverse=True)
    tied = torch.zeros(2, int(group.max()) + 1 if len(group) else 0, dtype=torch.float64)
    tied.index_put_(((label > 0.5).long(), group), counted, accumulate=True)
    negative, positive = tied
    below = negative.cumsum(0) - negative / 2
    pairs = float(negative.sum() * positive.sum())
    return float((positive * below).sum()) / pairs if pairs > 0 else nan


def score_rows(model: RankingModel, source: RowSource, rows: range | NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a model's logits for rows of a source, in the order given."""
    index = np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows
    parts = [model.score(source.batch(index[i : i + SCORE_ROWS])) for i in range(0, len(index), SCORE_ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Scored:
    """A model's logits with the labels and weights of their rows, float32 [N] each."""

    logit: NDArray[np.float32]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]


def scored(model: RankingModel, source: RowSource, rows: range) -> Scored:
    """Return a model's logits for some rows, with what they are to be held to."""
    parts = [
        (model.score(batch), batch.label, batch.weight)
        for at in range(rows.start, rows.stop, SCORE_ROWS)
        for batch in [source.batch(np.arange(at, min(at + SCORE_ROWS, rows.stop)))]
    ]
    return Scored(*(np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True)))


def validation_metrics(model: RankingModel, source: RowSource, rows: range) -> tuple[float, float]:
    """Return logloss in nats and AUC of a model on some rows, each row with its weight."""
    found = scored(model, source, rows)
    logit, label, weight = (torch.from_numpy(a) for a in (found.logit, found.label, found.weight))
    loss = float(hard_bce(logit.double(), label.double(), weight.double()))
    return loss, auc(logit, label, weight)


def better(candidate: Epoch, best: Epoch | None) -> bool:
    """Return whether `candidate` has the higher validation AUC, or the lower loss where AUC is undefined."""
    if best is None:
        return True
    if isfinite(candidate.validation_auc) and isfinite(best.validation_auc):
        return candidate.validation_auc > best.validation_auc
    return candidate.validation_loss < best.validation_loss


@dataclass
class _Standing:
    """Where a training stands: whole epochs, the best of them, and how far the one under way is."""

    done: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    snapshot: Snapshot | None = None
    batches: int = 0
    total: float = 0.0
    """Sum of the losses of the epoch's rows so far."""
    seen: int = 0
    finished: bool = False

    def is_over(self, epochs: int, patience: int) -> bool:
        """Return whether there is nothing left to do."""
        waited = len(self.done) - 1 - self.best.index if self.best else 0
        return self.finished or len(self.done) >= epochs or (self.best is not None and waited >= patience)

    def add(self, epoch: Epoch, model: nn.Module) -> None:
        """Take a whole epoch down."""
        self.done.append(epoch)
        self.batches, self.total, self.seen = 0, 0.0, 0
        if better(epoch, self.best):
            self.best, self.snapshot = epoch, None  # freed before the next copy is made
            self.snapshot = Snapshot(model)

    def save(self, model: nn.Module, resume: Resume) -> None:
        """Write a checkpoint."""
        tensors = {f"model.{i}": t for i, t in enumerate(_state(model))}
        if not self.finished:
            copies = self.snapshot.copies if self.snapshot else []
            tensors |= resume.state() | {f"best.{i}": t for i, t in enumerate(copies)}
        facts = {"done": [asdict(e) for e in self.done], "best": self.best.index if self.best else None}
        here = {"batches": self.batches, "total": self.total, "seen": self.seen, "finished": self.finished}
        resume.checkpoints.save(tensors, facts | here)

    @staticmethod
    def load(model: nn.Module, resume: Resume) -> "_Standing":
        """Return where a training stood and bring `model` there, or return the beginning."""
        found = resume.checkpoints.load()
        if found is None:
            return _Standing()
        tensors, facts = found
        done = [Epoch(**e) for e in facts.pop("done")]
        best = facts.pop("best")
        Snapshot(model, _in_order(part(tensors, "model."))).restore(model)
        if not facts["finished"]:
            resume.restore(tensors)
        copies = _in_order(part(tensors, "best."))
        snapshot = Snapshot(model, copies) if copies else None
        return _Standing(done, None if best is None else done[best], snapshot, **facts)


def _in_order(numbered: dict[str, Tensor]) -> list[Tensor]:
    return [numbered[str(i)] for i in range(len(numbered))]


def train(  # noqa: PLR0913 - one call site per model; a bag of options would only hide the names
    model: nn.Module,
    step: Callable[[B], float],
    batches: Callable[[int, int], Iterable[B]],
    validate: Callable[[], tuple[float, float]],
    *,
    epochs: int,
    patience: int,
    rows: int,
    progress: Progress,
    name: str,
    resume: Resume | None = None,
) -> Fit:
    """Train until `patience` epochs in a row bring nothing better, then restore the best epoch's state of `model`.

    step: trains on one batch and returns its mean loss. batches: an epoch's batches by its index, but for so many of
    the first. validate: loss and AUC of the model as it is. rows: rows per epoch, for the progress bar. resume:
    where checkpoints are kept; a training that left some there goes on from them, to the very same result.
    Raises: TrainingDiverged, NothingToTrainOn.
    """
    at = _Standing() if resume is None else _Standing.load(model, resume)
    if at.done or at.batches:
        progress.note(resumed(name, len(at.done), at.seen, at.is_over(epochs, patience)))
    while not at.is_over(epochs, patience):
        index = len(at.done)
        loss, speed = _one_epoch(model, step, batches(index, at.batches), rows, progress, name, at, resume)
        model.eval()
        at.add(Epoch(index, loss, *validate(), speed), model)
        progress.note(_line(name, at.done[-1]))
        if resume is not None and not at.is_over(epochs, patience):
            at.save(model, resume)
    if at.best is None:
        raise NothingToTrainOn(name)
    _finish(model, at, resume)
    return Fit(tuple(at.done), at.best.index)


def _finish(model: nn.Module, at: _Standing, resume: Resume | None) -> None:
    """Leave `model` in its best state, and write down that it is."""
    if at.snapshot is not None and at.best is not at.done[-1]:
        at.snapshot.restore(model)
    model.eval()
    if resume is not None and not at.finished:
        at.finished = True
        at.save(model, resume)


def _one_epoch(
    model: nn.Module,
    step: Callable[[B], float],
    batches: Iterable[B],
    rows: int,
    progress: Progress,
    name: str,
    at: _Standing,
    resume: Resume | None,
) -> tuple[float, float]:
    """Train from where the epoch stands to its end; return its mean loss and rows per second."""
    model.train()
    began, start = at.seen, time.perf_counter()
    speed = 0.0
    with progress.task(f"{name}, epoch {len(at.done) + 1}", rows) as task:
        task.advance(began)
        for batch in batches:
            loss = step(batch)
            if not isfinite(loss):
                raise TrainingDiverged(name, len(at.done), loss)
            at.total += loss * len(batch)
            at.seen += len(batch)
            at.batches += 1
            speed = (at.seen - began) / max(time.perf_counter() - start, 1e-9)
            task.advance(len(batch), loss=at.total / at.seen, rows_per_second=speed)
            if resume is not None and resume.checkpoints.due():
                at.save(model, resume)
    if not at.seen:
        raise NothingToTrainOn(name)
    return at.total / at.seen, speed


def _line(name: str, epoch: Epoch) -> str:
    return (
        f"{name}, epoch {epoch.index + 1}: loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}, "
        f"AUC {epoch.validation_auc:.4f}, {epoch.rows_per_second:,.0f} rows/s"
    )
