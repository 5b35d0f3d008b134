"""The forms of one trained student, made and measured on the validation days."""

import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys_kd.compress.export import quantized
from recsys_kd.compress.plan import BudgetTooSmall
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.calibration import IDENTITY
from recsys_kd.distil.loop import auc
from recsys_kd.flow import compression
from recsys_kd.flow.activations import with_activations
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.calibrating import calibrated, score_sample
from recsys_kd.flow.latency import latency_of
from recsys_kd.flow.options import Fold, Option, Wanted
from recsys_kd.flow.probing import Coded, code, telling
from recsys_kd.flow.recovery import recovery_stage
from recsys_kd.flow.training import Trained, student_of
from recsys_kd.flow.weighing import check_budget
from recsys_kd.models.student import Student
from recsys_kd.settings import CompressConfig, Recipe

FOLDS: tuple[Fold, ...] = ("item", "field")
UNITS = (1.0, 0.5)
FINALISTS = 2
_SCORED_ROWS = 262_144


def check_forms(recipe: Recipe, dataset: Dataset, budget: int) -> None:
    """Raise BudgetTooSmall, in terms of `--bytes`, where no form would fit, however its student were trained."""
    student, refused = Student(dataset.schema, recipe.student), []
    for fold, units in product(FOLDS, UNITS):
        try:
            check_budget(student, dataset, CompressConfig(bytes=budget, fold=fold, units=units), 0)
        except BudgetTooSmall as error:
            refused.append(error.needed)
        else:
            return
    told = f"plan: --bytes {budget}: a budget of {budget:,} bytes"
    raise BudgetTooSmall(min(refused), budget, told, "give more than that")


class Maker:
    """Makes and measures the forms of one trained student."""

    def __init__(self, recipe: Recipe, dataset: Dataset, trained: Trained, stages: Stages) -> None:
        self.recipe, self.dataset, self.trained, self.stages = recipe, dataset, trained, stages
        self.sample = telling(dataset.column("label"), dataset.splits["validation"], _SCORED_ROWS)
        self.label = torch.from_numpy(np.asarray(dataset.column("label")[self.sample], dtype=np.float32))
        self.weight = torch.from_numpy(np.asarray(dataset.column("weight")[self.sample], dtype=np.float32))
        parts = np.array_split(self.sample, max(1, len(self.sample) // 16_384))
        student = student_of(trained.student)
        self.student_auc = self._auc(np.concatenate([student.score(dataset.batch(index)) for index in parts]))
        self.student_bytes = sum(4 * p.numel() for p in student.parameters())
        self._coded: dict[tuple[Fold, float], Coded] = {}

    def _auc(self, logit: Any) -> float:
        return auc(torch.from_numpy(logit), self.label, self.weight)

    def _config(self, fold: Fold, units: float, budget: int, tiers: bool) -> CompressConfig:
        given = self.recipe.compress
        form = {"fold": fold, "units": units, "tiers": tiers and given.tiers}
        return CompressConfig(bytes=budget, bits=given.bits, half_life_days=given.half_life_days, **form)

    def tried(self, budget: int, wanted: Wanted) -> list[Option]:
        """Return every form for a budget, the most promising measured, those ruled out with why.

        Raises: BudgetTooSmall where no form fits, naming the smallest budget that one would.
        """
        sketches, refused = [], []
        for fold, units in product(FOLDS, UNITS):
            try:
                sketches.append(self.sketch(fold, units, budget, wanted))
            except BudgetTooSmall as error:
                refused.append(error)
        if not sketches:
            raise min(refused, key=lambda error: error.needed)
        sketches.sort(key=lambda sketch: sketch[0].predicted_nats)
        options: list[Option] = []
        for option, pruned in sketches:
            done = [o for o in options if o.auc is not None]
            if option.why:
                options.append(option)
            elif len(done) >= FINALISTS and not all(o.why for o in done):
                options.append(replace(option, why="predicted to lose more than those that were finished"))
            else:
                options.append(self.measured(option, pruned, wanted))
        return options

    def sketch(self, fold: Fold, units: float, budget: int, wanted: Wanted) -> tuple[Option, compression.Pruned]:
        """Return a form as it is before recovery, with its exact bytes and its time; `why` where that rules it out.

        Rows in two tiers cost time; where they take too much, those of one tier are tried.
        """
        form = f"plan: fold {fold}, {units:.0%} of the units, {budget:,} bytes"
        self.stages.progress.note(f"{form}: pruning, weighing, timing")
        option, pruned = self._sketch(fold, units, budget, True)
        if option.too_slow(wanted) and option.hot:
            option, pruned = self._sketch(fold, units, budget, False)
        return replace(option, why=option.too_slow(wanted)), pruned

    def _sketch(self, fold: Fold, units: float, budget: int, tiers: bool) -> tuple[Option, compression.Pruned]:
        config = self._config(fold, units, budget, tiers)
        if (fold, units) not in self._coded:
            self._coded[fold, units] = code(student_of(self.trained.student), self.dataset, config)
        coded = self._coded[fold, units]
        pruned = compression.prune(coded, self.dataset, config, budget)
        summary, time = pruned.plan.summary(), self._time(pruned)
        shape = {key: summary[key] for key in ("rows", "rank", "bits")}
        hot = {
            name: f"{rows:,} of them with {summary['hot_bits'][name]} bits more and {summary['hot_rank'][name]} numbers"
            for name, rows in summary.get("hot_rows", {}).items()
        }
        nats = pruned.plan.predicted_loss + coded.units_cost
        weight = pruned.plan.predicted_bytes
        return Option(
            fold, units, config.tiers, budget, weight, **shape, hot=hot, predicted_nats=nats, p50_us=time
        ), pruned

    def _time(self, pruned: compression.Pruned) -> float:
        served = calibrated(quantized(pruned.student), IDENTITY)
        with tempfile.TemporaryDirectory() as folder:
            digests = dict.fromkeys(("data", "recipe", "teacher"), "0" * 64)
            made = compression.Compressed(served, served, served, pruned.plan)
            written = compression.publish_artifact(Path(folder), self.recipe.name, made, self.dataset, digests, [])
            return latency_of(written.path)[0]

    def measured(self, option: Option, pruned: compression.Pruned, wanted: Wanted) -> Option:
        """Return an option with what its finished artifact is worth on the validation days."""
        form = f"plan: fold {option.fold}, {option.units:.0%} of the units, {option.bytes:,} bytes"
        self.stages.progress.note(f"{form}: fitting once more, scoring")
        folder = self.trained.folders["student"]
        recover = recovery_stage(self.recipe, self.dataset, self.trained.soft, folder, self.stages, "student-recovery")
        made = compression.finish(pruned, self.dataset, recover, self.recipe.compress.recovery.steps)
        made = with_activations(self.recipe, made, self.dataset, self.stages, "student-activations")
        found = self._auc(score_sample(made.served, self.dataset, self.sample))
        loss = self.student_auc - found
        over = wanted.loss is not None and loss > wanted.loss
        why = f"loses {loss:.4f}, more than {wanted.loss:g}" if over and wanted.loss is not None else ""
        option = option.timed_as(made.activations)
        return replace(option, auc=found, loss=loss, why=why or option.too_slow(wanted))
