"""Size, quality and latency: the planner's artifacts at budgets from 1/5 to 1/100 of the teacher, and at the very bytes
of the student in other formats, beside what else makes a student smaller. Prints a table per set and writes a picture,
build/bench/pareto-<set>.svg.

BENCH_SETS, BENCH_ROWS and BENCH_WORK as in `sets`.
"""

import tempfile
from pathlib import Path

import fbgemm_gpu  # noqa: F401 - registers its operators
import torch

from recsys_kd.cli.display import PlainProgress
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.loop import score_rows
from recsys_kd.evaluate.metrics import auc
from recsys_kd.evaluate.pareto import OURS, Point, draw
from recsys_kd.flow import compression
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.calibrating import served_auc
from recsys_kd.flow.evaluation import score_compiled, test_sample
from recsys_kd.flow.forms import FOLDS
from recsys_kd.flow.latency import latency_of
from recsys_kd.flow.night import read
from recsys_kd.flow.probing import code, telling
from recsys_kd.flow.recovery import recovery_stage
from recsys_kd.flow.training import Trained, student_of, train
from recsys_kd.flow.weighing import budget_of
from recsys_kd.settings import CompressConfig, Recipe
from tests.benchmarks import compression_peers as peers
from tests.benchmarks.sets import asked, recipe_of
from tests.benchmarks.table import OUT, show

RATIOS = (5, 10, 20, 30, 50, 100)
FORMATS = {"fp16": peers.half, "FBGEMM int8": peers.fbgemm8, "FBGEMM int4": peers.fbgemm4}
_SCORED_ROWS = 262_144
WIDTHS, SHARES = (32, 16, 8, 4, 2, 1), (0.3, 0.1, 0.05)


def ours(recipe: Recipe, dataset: Dataset, trained: Trained, stages: Stages, budgets: dict[str, int]) -> list[Point]:
    """Return the planner's artifacts for some budgets, as they are read from disk.

    As `recsys-kd plan` does, both folds are finished and the one that is better on the validation days is taken.
    """
    recover = recovery_stage(recipe, dataset, trained.soft, trained.folders["student"], stages, "student-recovery")
    found, sample, student = [], test_sample(dataset), student_of(trained.student)
    validation = telling(dataset.column("label"), dataset.splits["validation"], _SCORED_ROWS)
    coded = {fold: code(student, dataset, CompressConfig(fold=fold)) for fold in FOLDS}
    for name, budget in budgets.items():
        pruned = [
            compression.prune(c, dataset, CompressConfig(bytes=budget, fold=fold), budget) for fold, c in coded.items()
        ]
        tried = [compression.finish(p, dataset, recover) for p in pruned]
        made = max(tried, key=lambda m: served_auc(m.recovered, dataset, validation))
        with tempfile.TemporaryDirectory() as folder:
            digests = dict.fromkeys(("data", "recipe", "teacher"), "0" * 64)
            artifact = compression.publish_artifact(Path(folder), recipe.name, made, dataset, digests, [])
            size, p50 = artifact.bytes_on_disk, latency_of(artifact.path)[0]
        value = auc(score_compiled(made.served, dataset)[0], sample).value
        hot = ", two tiers" if "hot_rows" in made.plan.summary() else ""
        found.append(Point(OURS, f"{name}, fold {made.plan.fold}{hot}", size, value, p50))
    return found


def others(recipe: Recipe, dataset: Dataset, trained: Trained) -> list[Point]:
    """Return every baseline, the student's formats first."""
    sample, found = test_sample(dataset), []

    def add(way: str, detail: str, model: object, size: int) -> None:
        found.append(Point(way, detail, size, auc(score_rows(model, dataset, dataset.splits["test"]), sample).value))

    student = student_of(trained.student)
    for name, way in FORMATS.items():
        add(name, "unpruned student", *peers.in_format(student, way))
    config = recipe.student
    for width in WIDTHS:
        narrow = config.model_copy(update={"width": width})
        torch.manual_seed(recipe.seed)
        model = peers.fitted(peers.Student(dataset.schema, narrow), dataset, narrow, recipe.seed)
        add("narrower, no teacher", f"width {width}", model, peers.float_bytes(model))
    for way, both in (("hashing trick", False), ("quotient-remainder", True)):
        for share in SHARES:
            torch.manual_seed(recipe.seed)
            model = peers.fitted(peers.Shared(dataset.schema, config, share, both), dataset, config, recipe.seed)
            add(way, f"{share:.0%} of the rows", model, peers.float_bytes(model))
    return found


def above(points: list[Point]) -> list[str]:
    """Return the baselines that are better than every artifact of ours that is no larger."""
    mine = [p for p in points if p.way == OURS]
    least, beaten = min(p.bytes for p in mine), []
    for p in points:
        if p.way in (OURS, "teacher") or p.bytes < least:
            continue
        if p.auc > max(m.auc for m in mine if m.bytes <= p.bytes):
            beaten.append(f"{p.way}, {p.detail}")
    return beaten


def points_of(recipe: Recipe, dataset: Dataset, trained: Trained, stages: Stages) -> list[Point]:
    """Return all points of a set, the teacher's and ours first."""
    teacher = auc(score_rows(trained.teacher.model, dataset, dataset.splits["test"]), test_sample(dataset)).value
    baselines = others(recipe, dataset, trained)
    budgets = {f"1/{ratio}": trained.teacher.bytes // ratio for ratio in RATIOS}
    budgets |= {f"as {p.way}": p.bytes for p in baselines if p.way in FORMATS}
    mine = ours(recipe, dataset, trained, stages, budgets)
    return [*mine, Point("teacher", "", trained.teacher.bytes, teacher), *baselines]


def report(name: str, points: list[Point], chosen: int) -> None:
    """Print a set's table, and write its picture."""
    teacher = next(p.bytes for p in points if p.way == "teacher")
    show(f"pareto-{name}", [
        {"way": p.way, "what": p.detail, "bytes": f"{p.bytes:,}", "teacher / this": f"{teacher / p.bytes:.1f}",
         "test AUC": f"{p.auc:.4f}", "p50 us": "" if p.p50 is None else f"{p.p50:.0f}"}
        for p in points
    ])  # fmt: skip
    nearest = min((p for p in points if p.way == OURS), key=lambda p: abs(p.bytes - chosen))
    (OUT / f"pareto-{name}.svg").write_text(draw(points, nearest))
    beaten = above(points)
    print(f"baselines that lie above ours: {'; '.join(beaten) if beaten else 'none'}")


def main() -> None:
    """Print the table of every set."""
    for name in asked("shop"):
        with recipe_of(name) as recipe:
            stages = Stages(recipe.work, PlainProgress())
            dataset, digest = read(recipe, stages)
            trained = train(recipe, dataset, digest, stages)
            budget = budget_of(recipe.compress, trained.teacher.bytes) or trained.teacher.bytes // 20
            report(name, points_of(recipe, dataset, trained, stages), budget)


if __name__ == "__main__":
    main()
