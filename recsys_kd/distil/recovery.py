"""Recovery: a short fit of the pruned and narrowed student to labels and teacher, in the very form that is served.

Rows that share the fallback, and rows with fewer coordinates than they were trained with, are far from what would be
best under those limits; a pass over the training rows with a falling learning rate takes most of that back. It is
kept only if validation says that it helped. Of a recipe's terms those on logits are used.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys_kd.batch import Batch
from recsys_kd.distil.checkpoint import Checkpoints, Resume, resumed
from recsys_kd.distil.loop import NothingToTrainOn
from recsys_kd.distil.losses import hard_bce
from recsys_kd.distil.objective import shuffled, terms_on_logits
from recsys_kd.models.compiled import CompiledModule
from recsys_kd.models.gradients import descend, is_sparse
from recsys_kd.models.source import RowSource
from recsys_kd.progress import Progress
from recsys_kd.schema import Schema
from recsys_kd.settings import DistilConfig, RecoveryConfig
from recsys_kd.tables import CompiledStudent

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Training:
    """What recovery learns from.

    source: the log. items: item row of every row [N]. rows: row numbers. judge: validation AUC of a student as it will
    be served. soft: calibrated teacher logits of every row [N], NaN where there are none; None for a control. novelty:
    the chance of each field that a lookup is taken for one of an unknown id, so that the fallback row learns to answer
    those beside the ids that were pruned.
    """

    source: RowSource
    items: Rows
    rows: Rows
    judge: Callable[[CompiledStudent], float]
    soft: Floats | None
    novelty: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recovered:
    """The student after recovery (or before it, where it did not help), and validation AUC before and after."""

    student: CompiledStudent
    before: float
    after: float

    @property
    def helped(self) -> bool:
        """Whether the fit was kept."""
        return self.after > self.before


def recover(
    module: CompiledModule,
    data: Training,
    config: RecoveryConfig,
    distil: DistilConfig,
    seed: int,
    progress: Progress,
    name: str,
    checkpoints: Checkpoints | None = None,
) -> Recovered:
    """Train a pruned student's rows, bases and head for `config.epochs`; the rate falls to zero in a straight line.

    Rows learn in proportion to their table's own spread: coordinates have no natural size. A fit that left
    `checkpoints` goes on from them, to the very same student.
    """
    if len(data.rows) == 0 and config.epochs:
        raise NothingToTrainOn(name)
    start = module.compiled()
    before = data.judge(start)
    _Fitting(module, data, config, distil, seed).run(progress, name, checkpoints)
    fitted = module.compiled()
    after = data.judge(fitted)
    helped = after > before  # not `after <= before`: a fit that diverged to NaN must be thrown away too
    told = "" if helped else "; no better, so it is thrown away"
    progress.note(f"{name}: validation AUC {before:.4f} -> {after:.4f}{told}")
    return Recovered(fitted if helped else start, before, after)


class _Fitting:
    """A fit under way: whole epochs, batches of the next one, and rows seen in all."""

    def __init__(
        self, module: CompiledModule, data: Training, config: RecoveryConfig, distil: DistilConfig, seed: int
    ) -> None:
        self.module, self.data, self.config, self.distil, self.seed = module, data, config, distil, seed
        # The full rates come of the rows as they were pruned: before a checkpoint is read.
        self.optimizers, self.rates = _optimizers(module, config)
        self.requests = data.source.column("request") if data.soft is not None and distil.over_requests else None
        self.epochs = self.batches = self.seen = 0

    def run(self, progress: Progress, name: str, checkpoints: Checkpoints | None) -> None:
        """Fit from where the checkpoints stand, or from the beginning, to the end."""
        live = dict(self.module.named_parameters())
        resume = Resume(checkpoints, self.optimizers, lambda: live) if checkpoints else None
        if resume is not None and self._load(resume):
            progress.note(resumed(name, self.epochs, self._in_epoch, self.epochs >= self.config.epochs))
        while self.epochs < self.config.epochs:
            with progress.task(f"{name}, epoch {self.epochs + 1}", len(self.data.rows)) as task:
                task.advance(self._in_epoch)
                for index in islice(self._order(), self.batches, None):
                    task.advance(len(index), loss=self._learn(index))
                    if resume is not None and resume.checkpoints.due():
                        self._save(resume)
            self.epochs, self.batches = self.epochs + 1, 0
            if resume is not None:
                self._save(resume)

    @property
    def _in_epoch(self) -> int:
        return self.seen - self.epochs * len(self.data.rows)

    def _order(self) -> Iterator[Rows]:
        return shuffled(self.data.rows, self.config.batch_size, self.seed * 1000 + self.epochs, self.requests)

    def _learn(self, index: Rows) -> float:
        left = max(1.0 - self.seen / (self.config.epochs * len(self.data.rows)), 1e-6)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, full in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = full * left
        draw = np.random.default_rng([self.seed, self.epochs, self.batches])
        batch = with_unknown(self.data.source.batch(index), self.data.source.schema, self.data.novelty, draw)
        loss = _step(self.module, self.data, index, batch, self.distil, self.optimizers)
        self.batches, self.seen = self.batches + 1, self.seen + len(index)
        return loss

    def _save(self, resume: Resume) -> None:
        facts = {"epochs": self.epochs, "batches": self.batches, "seen": self.seen}
        resume.checkpoints.save(resume.state(), facts)

    def _load(self, resume: Resume) -> bool:
        found = resume.checkpoints.load()
        if found is None:
            return False
        tensors, facts = found
        resume.restore(tensors)
        self.epochs, self.batches, self.seen = facts["epochs"], facts["batches"], facts["seen"]
        return True


def _optimizers(
    module: CompiledModule, config: RecoveryConfig
) -> tuple[list[torch.optim.Optimizer], list[list[float]]]:
    """Return Adam, lazy where a gradient is sparse, and the full rate of each of its groups."""
    large: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = [{"params": list(module.arrays.values()), "lr": config.lr}]
    for table in module.rows.values():
        rate = config.row_lr * max(float(table.detach().std(correction=0)), 1e-6)
        (large if is_sparse(table) else rest).append({"params": [table], "lr": rate})
    found: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, fused=True)]
    if large:
        found.append(torch.optim.SparseAdam(large))
    return found, [[float(g["lr"]) for g in optimizer.param_groups] for optimizer in found]


def with_unknown(batch: Batch, schema: Schema, novelty: Mapping[str, float], draw: np.random.Generator) -> Batch:
    """Return a batch in which ids, drawn at random with their field's chance, are unknown."""

    def some(name: str, rows: Rows) -> Rows:
        share = novelty.get(name, 0.0)
        return np.where(draw.random(len(rows)) < share, schema.rows(schema.field(name)) - 1, rows) if share else rows

    ids = {name: some(name, rows) for name, rows in batch.ids.items()}
    bags = {name: replace(bag, values=some(name, bag.values)) for name, bag in batch.bags.items()}
    return replace(batch, ids=ids, bags=bags)


def _step(
    module: CompiledModule,
    data: Training,
    index: Rows,
    batch: Batch,
    distil: DistilConfig,
    optimizers: list[torch.optim.Optimizer],
) -> float:
    logit = module(batch, data.items[index])
    weight = torch.from_numpy(batch.weight)
    loss = hard_bce(logit, torch.from_numpy(batch.label), weight)
    if data.soft is not None:
        loss = loss + terms_on_logits(logit, torch.from_numpy(data.soft[index]), batch, distil)
    descend(loss, optimizers)
    return float(loss.detach())
