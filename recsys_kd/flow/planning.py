"""Which artifact to make: bytes, microseconds and AUC, weighed against each other on what was measured.

The student is trained as a night trains it (its stages are reused, and the night that follows reuses them). Every form
of it is pruned, weighed to the byte and timed; those fast enough are fitted again, quantized and scored on the
validation days. The test days stay unseen.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from recsys_kd.compress.plan import BadBudget, CompressionPlan, parse_bytes
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.loop import auc
from recsys_kd.flow import calibrating, compression, probing, weighing
from recsys_kd.flow.cache import Stages, remove_leftovers
from recsys_kd.flow.checks import check
from recsys_kd.flow.latency import latency_of
from recsys_kd.flow.night import read
from recsys_kd.flow.recovery import recovery_stage
from recsys_kd.flow.training import Trained, student_of, train
from recsys_kd.progress import Progress
from recsys_kd.settings import CompressConfig, Recipe
from recsys_kd.tables import CompiledStudent

Fold = Literal["item", "field"]
FOLDS: tuple[Fold, ...] = ("item", "field")
LADDER = (100, 50, 30, 20, 10, 5)
"""Teacher bytes / artifact bytes, smallest artifact first: what is tried where no budget of bytes is given."""
SERVED_BITS = 15
"""Of activations; 8 would be twice as fast, but kernels would not agree within 1e-5 (`runtime.head`)."""
_SCORED_ROWS = 262_144
_CHOSEN = "chosen: "


@dataclass(frozen=True)
class Wanted:
    """The limits; None is no limit. loss: AUC that the artifact may lose to the float student on validation days."""

    bytes: int | None = None
    p50_us: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Option:
    """One form of the artifact, and what is known of it."""

    fold: Fold
    budget: int
    bytes: int
    rows: dict[str, int]
    rank: dict[str, int]
    bits: dict[str, int]
    predicted_nats: float
    """Second-order estimate of the log loss that pruning, narrowing and rounding cost, per row, before recovery."""
    p50_us: float
    """Median time of a request of 1,000 candidates, one thread, this machine."""
    auc: float | None = None
    """Of the fitted and quantized artifact on the validation days; None where it was ruled out before."""
    loss: float | None = None
    activations: dict[str, float] | None = None
    """Log loss on the validation days more than with float32 activations, by the bits of theirs; 15 are served."""
    why: str = ""


@dataclass(frozen=True)
class Planned:
    """All options and the one to take; `student` is the float student's AUC on the validation days."""

    options: list[Option]
    chosen: Option
    student: float
    teacher_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the plan as text."""
        head = f"{'fold':<6}{'bytes':>12}{'ratio':>8}{'p50 us':>8}{'nats':>10}{'AUC':>9}{'lost':>9}  "
        out = [f"float student: validation AUC {self.student:.4f}", head]
        for o in self.options:
            ratio = f"{self.teacher_bytes / o.bytes:.1f}x" if self.teacher_bytes else ""
            found = f"{o.auc:>9.4f}{o.loss:>+9.4f}" if o.auc is not None and o.loss is not None else " " * 18
            out.append(f"{o.fold:<6}{o.bytes:>12,}{ratio:>8}{o.p50_us:>8.0f}{o.predicted_nats:>10.6f}{found}  {o.why}")
        if any((o.loss or 0.0) < 0 for o in self.options):
            out.append("lost below 0 is a gain: pruned and fitted once more, it scores above the float student there")
        for name, rows in self.chosen.rows.items():
            shape = f"{self.chosen.rank[name]} numbers of {self.chosen.bits[name]} bits"
            out.append(f"table {name}: {rows:,} rows of {shape}")
        if self.chosen.activations:
            cost = ", ".join(f"{bits} bits {more:+.1e}" for bits, more in self.chosen.activations.items())
            out.append(f"activations: log loss beside float32: {cost}; {SERVED_BITS} bits are served")
        return [*out, f"write into the recipe: compress: {{bytes: {self.chosen.budget}, fold: {self.chosen.fold}}}"]


def plan(recipe: Recipe, wanted: Wanted, progress: Progress) -> Planned:
    """Return the smallest artifact that keeps all limits; with a limit of bytes, the one that loses least.

    Raises: BadBudget where no form keeps all limits, naming the nearest; what reading and training raise.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    check(recipe)
    remove_leftovers(recipe.work)
    stages = Stages(recipe.work, progress)
    dataset, data_digest = read(recipe, stages)
    trained = train(recipe, dataset, data_digest, stages)
    maker = _Maker(recipe, dataset, trained, stages)
    found: list[Option] = []
    for budget in _budgets(recipe, wanted, trained.teacher.bytes):
        if wanted.bytes is None and not maker.is_possible(budget):
            continue
        tried = sorted((maker.sketch(fold, budget, wanted) for fold in FOLDS), key=lambda o: o.predicted_nats)
        tried = [maker.measured(o, wanted) if not o.why else o for o in tried]
        found += tried
        good = [o for o in tried if not o.why]
        if good:
            best = max(good, key=lambda o: o.auc or 0.0)
            options = [_judged(o, best, wanted) for o in found]
            chosen = next(o for o in options if o.why.startswith(_CHOSEN))
            return Planned(options, chosen, maker.student_auc, trained.teacher.bytes)
    raise BadBudget(
        _nearest(found, wanted) if found else "plan: the teacher is too small to take shares of; give --bytes"
    )


def _judged(option: Option, best: Option, wanted: Wanted) -> Option:
    """Return an option with why it was taken, or was not."""
    if option is best:
        return replace(option, why=_CHOSEN + _reason(wanted))
    return option if option.why else replace(option, why="loses more than the chosen one")


def _reason(wanted: Wanted) -> str:
    limits = "keeps all limits" if wanted != Wanted() else "no limits were given"
    return f"{limits}, and loses least in these bytes" if wanted.bytes else f"the smallest that {limits}"


def _budgets(recipe: Recipe, wanted: Wanted, teacher_bytes: int) -> Iterator[int]:
    """Yield budgets to try, the smallest first."""
    if wanted.bytes is not None:
        yield wanted.bytes
        return
    whole = teacher_bytes or parse_bytes(recipe.compress.bytes or 0) * LADDER[-1]
    if not whole:
        raise BadBudget("plan: the teacher has no bytes of its own to take shares of; give --bytes, such as 20MB")
    yield from (whole // ratio for ratio in LADDER)


def _nearest(found: list[Option], wanted: Wanted) -> str:
    limits = [f"--bytes {wanted.bytes}" if wanted.bytes else "", f"--p50-us {wanted.p50_us:g}" if wanted.p50_us else ""]
    limits.append(f"--max-loss {wanted.loss:g}" if wanted.loss else "")
    near = min(found, key=lambda o: (o.loss is None, o.loss or 0.0, o.p50_us))
    lost = "" if near.loss is None else f", {near.loss:+.4f} AUC"
    return (
        f"plan: no artifact keeps {' '.join(text for text in limits if text)} together; the nearest is fold "
        f"{near.fold} with {near.bytes:,} bytes, {near.p50_us:.0f} us{lost}: {near.why}; give one of them room"
    )


class _Maker:
    """Makes and measures the forms of one trained student."""

    def __init__(self, recipe: Recipe, dataset: Dataset, trained: Trained, stages: Stages) -> None:
        self.recipe, self.dataset, self.trained, self.stages = recipe, dataset, trained, stages
        self.sample = probing.evenly(dataset.splits["validation"], _SCORED_ROWS)
        self.label = torch.from_numpy(np.asarray(dataset.column("label")[self.sample], dtype=np.float32))
        self.weight = torch.from_numpy(np.asarray(dataset.column("weight")[self.sample], dtype=np.float32))
        parts = np.array_split(self.sample, max(1, len(self.sample) // 16_384))
        student = student_of(trained.student)
        self.student_auc = self._auc(np.concatenate([student.score(dataset.batch(index)) for index in parts]))

    def _auc(self, logit: Any) -> float:
        return auc(torch.from_numpy(logit), self.label, self.weight)

    def _compressed(self, fold: Fold, budget: int, recover: compression.Recover) -> compression.Compressed:
        config = CompressConfig(bytes=budget, bits=self.recipe.compress.bits, fold=fold)
        size = self.trained.teacher.bytes
        return compression.compress(student_of(self.trained.student), self.dataset, config, size, recover)

    def is_possible(self, budget: int) -> bool:
        """Return whether anything at all fits a budget."""
        config = CompressConfig(bytes=budget, bits=self.recipe.compress.bits)
        try:
            weighing.check_budget(student_of(self.trained.student), self.dataset, config, self.trained.teacher.bytes)
        except BadBudget:
            return False
        return True

    def sketch(self, fold: Fold, budget: int, wanted: Wanted) -> Option:
        """Return a form as it is before recovery, with its exact bytes and its time; `why` where that rules it out."""
        self.stages.progress.note(f"plan: fold {fold}, {budget:,} bytes: pruning, weighing, timing")
        made = self._compressed(fold, budget, lambda pruned: pruned)
        plan, time = made.plan, self._time(made.served, made.plan)
        summary = plan.summary()
        why = ""
        if wanted.p50_us is not None and time > wanted.p50_us:
            why = f"takes {time:.0f} us, more than {wanted.p50_us:g}"
        shape = {key: summary[key] for key in ("rows", "rank", "bits")}
        return Option(
            fold, budget, plan.predicted_bytes, **shape, predicted_nats=plan.predicted_loss, p50_us=time, why=why
        )

    def _time(self, served: CompiledStudent, plan: CompressionPlan) -> float:
        with tempfile.TemporaryDirectory() as folder:
            digests = dict.fromkeys(("data", "recipe", "teacher"), "0" * 64)
            made = compression.Compressed(served, served, served, plan)
            written = compression.publish_artifact(Path(folder), self.recipe.name, made, self.dataset, digests, [])
            return latency_of(written.path)[0]

    def measured(self, option: Option, wanted: Wanted) -> Option:
        """Return an option with what its finished artifact is worth on the validation days."""
        recipe = self.recipe
        folder = self.trained.folders["student"]
        self.stages.progress.note(f"plan: fold {option.fold}, {option.bytes:,} bytes: fitting once more, scoring")
        recover = recovery_stage(recipe, self.dataset, self.trained.soft, folder, self.stages, "student-recovery")
        made = self._compressed(option.fold, option.budget, recover)
        found = self._auc(calibrating.score_sample(made.served, self.dataset, self.sample))
        loss = self.student_auc - found
        over = wanted.loss is not None and loss > wanted.loss
        why = f"loses {loss:.4f}, more than {wanted.loss:g}" if over and wanted.loss is not None else ""
        return replace(option, auc=found, loss=loss, activations=self._activations(made.served), why=why)

    def _activations(self, served: CompiledStudent) -> dict[str, float]:
        """Return what activations of fewer bits cost on the validation days, in nats per row."""

        def nats(steps: int | None) -> float:
            logit = calibrating.score_sample(served, self.dataset, self.sample, steps).astype(np.float64)
            each = np.logaddexp(0.0, logit) - self.label.numpy() * logit
            return float(np.average(each, weights=self.weight.numpy()))

        exact = nats(None)
        return {str(bits): nats(2**bits - 1) - exact for bits in (SERVED_BITS, 8)}
