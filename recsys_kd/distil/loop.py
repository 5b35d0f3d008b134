"""The training loop that teacher and student share: epochs, early stopping, and the best state at the end.

The best epoch is the one with the highest validation AUC (lowest loss where one class is missing): embeddings start to
overfit at the second epoch (arXiv 2209.06053), so one epoch may well be it. Calibration is put right afterwards.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from math import isfinite, nan
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys_kd.batch import RankingModel
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

    def __init__(self, model: nn.Module) -> None:
        self._copies = [tensor.detach().clone() for tensor in _state(model)]

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Write the copies back into the same model, in place."""
        for tensor, copy in zip(_state(model), self._copies, strict=True):
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


def train(  # noqa: PLR0913 - one call site per model; a bag of options would only hide the names
    model: nn.Module,
    step: Callable[[B], float],
    batches: Callable[[int], Iterable[B]],
    validate: Callable[[], tuple[float, float]],
    *,
    epochs: int,
    patience: int,
    rows: int,
    progress: Progress,
    name: str,
) -> Fit:
    """Train until `patience` epochs in a row bring nothing better, then restore the best epoch's state of `model`.

    step: trains on one batch and returns its mean loss. batches: the batches of an epoch, by its index. validate: loss
    and AUC of the model as it is. rows: rows per epoch, for the progress bar.
    Raises: TrainingDiverged, NothingToTrainOn.
    """
    done: list[Epoch] = []
    best: Epoch | None = None
    snapshot: Snapshot | None = None
    for index in range(epochs):
        loss, speed = _one_epoch(model, step, batches(index), rows, progress, f"{name}, epoch {index + 1}")
        if not isfinite(loss):
            raise TrainingDiverged(name, index, loss)
        model.eval()
        done.append(Epoch(index, loss, *validate(), speed))
        progress.note(_line(name, done[-1]))
        if better(done[-1], best):
            best, snapshot = done[-1], None  # freed before the next copy is made
            snapshot = Snapshot(model)
        elif best is not None and index - best.index >= patience:
            break
    if best is None or snapshot is None:
        raise NothingToTrainOn(name)
    if best is not done[-1]:
        snapshot.restore(model)
    model.eval()
    return Fit(tuple(done), best.index)


def _one_epoch(
    model: nn.Module, step: Callable[[B], float], batches: Iterable[B], rows: int, progress: Progress, name: str
) -> tuple[float, float]:
    """Return mean loss and rows per second."""
    model.train()
    total, seen, start = 0.0, 0, time.perf_counter()
    with progress.task(name, rows) as task:
        for batch in batches:
            loss = step(batch)
            total += loss * len(batch)
            seen += len(batch)
            elapsed = max(time.perf_counter() - start, 1e-9)
            task.advance(len(batch), loss=total / seen, rows_per_second=seen / elapsed)
            if not isfinite(loss):
                return loss, seen / elapsed
    if not seen:
        raise NothingToTrainOn(name)
    return total / seen, seen / max(time.perf_counter() - start, 1e-9)


def _line(name: str, epoch: Epoch) -> str:
    return (
        f"{name}, epoch {epoch.index + 1}: loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}, "
        f"AUC {epoch.validation_auc:.4f}, {epoch.rows_per_second:,.0f} rows/s"
    )
