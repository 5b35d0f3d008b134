"""What a night must reach, over seeds: the served student beside the control of the same bytes, at 1/30 of the teacher.

Every seed trains teacher, student and control, and serves both students at `TARGET_RATIO` (30). Intervals are those of
`recsys_kd.evaluate.ablation`: users and seeds drawn again. BENCH_SETS, BENCH_SEEDS and BENCH_WORK as in `sets`.
Defaults are chosen by the column of the validation days; BENCH_CHANGE tries others: `{"student": {"init": "auto"}}`.
"""

import json
import os

import numpy as np
import torch

from recsys_kd.cli.display import PlainProgress
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.loop import auc
from recsys_kd.evaluate.ablation import CONTROL, TEACHER, ablation
from recsys_kd.evaluate.ablation_report import share
from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.flow import models
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.calibrating import score_sample
from recsys_kd.flow.evaluation import Calibrated, score_compiled, score_test, test_sample
from recsys_kd.flow.night import compress, read
from recsys_kd.flow.training import train
from recsys_kd.settings import Recipe
from tests.benchmarks.sets import asked, recipe_of, seeds_of
from tests.benchmarks.table import show

RATIO = float(os.environ.get("TARGET_RATIO", "30"))
CHANGE = json.loads(os.environ.get("BENCH_CHANGE", "{}"))
SERVED, FLOAT, FLOAT_CONTROL = "student served", "student, float", "control, float"
MARGIN = 0.003
"""AUC by which the served student may be below its teacher, at the interval's end."""


def one(recipe: Recipe, dataset: Dataset, digest: str, stages: Stages) -> tuple[dict[str, np.ndarray], float, float]:
    """Return a seed's test logits by model, the served student's share of the teacher's bytes, and validation AUC."""
    trained = train(recipe, dataset, digest, stages)
    made = {which: compress(recipe, dataset, trained, stages, which) for which in ("student", "control")}
    teacher = Calibrated(trained.teacher.model, models.calibrate(trained.teacher.model, dataset))
    logits = {
        TEACHER: score_test(teacher, dataset),
        CONTROL: score_compiled(made["control"].served, dataset)[0],
        SERVED: score_compiled(made["student"].served, dataset)[0],
        FLOAT: score_test(trained.student, dataset),
        FLOAT_CONTROL: score_test(trained.control, dataset),
    }
    rows = dataset.splits["validation"]
    label = np.asarray(dataset.column("label")[rows.start : rows.stop], dtype=np.float32)
    score = score_sample(made["student"].served, dataset, np.arange(rows.start, rows.stop))
    validation = auc(torch.from_numpy(score), torch.from_numpy(label))
    return logits, made["student"].plan.predicted_bytes / trained.teacher.bytes, validation


def changed(recipe: Recipe) -> Recipe:
    """Return a recipe with what BENCH_CHANGE says."""
    for name, update in CHANGE.items():
        section = getattr(recipe, name)
        whole = type(section).model_validate(section.model_dump() | update)
        recipe = recipe.model_copy(update={name: whole})
    return recipe


def told(interval: Interval) -> str:
    """Return a value with its interval."""
    return f"{interval.value:+.4f} ({interval.low:+.4f}, {interval.high:+.4f})"


def report(base: Recipe) -> list[dict[str, str]]:
    """Return a set's rows: every model over all seeds."""
    stages = Stages(base.work, PlainProgress())
    dataset, digest = read(base, stages)
    config = base.compress.model_copy(update={"ratio": RATIO, "bytes": None, "keep_rows": None})
    logits: dict[str, list[np.ndarray]] = {}
    sizes, validation = [], []
    recipes = [changed(r.model_copy(update={"compress": config})) for r in seeds_of(base)]
    for recipe in recipes:
        found, size, valid = one(recipe, dataset, digest, stages)
        sizes.append(size)
        validation.append(valid)
        for name, values in found.items():
            logits.setdefault(name, []).append(values)
    sample, seeds = test_sample(dataset), [r.seed for r in recipes]
    whole = ablation(logits, sample, seeds, base.evaluate.confidence, bins=base.evaluate.ece_bins)
    # Against the teacher: the same, with the teacher in the control's place.
    swapped = {TEACHER: logits[CONTROL], CONTROL: logits[TEACHER], **{n: logits[n] for n in (SERVED, FLOAT)}}
    below = ablation(swapped, sample, seeds, base.evaluate.confidence, bins=base.evaluate.ece_bins)
    rows = []
    for arm in whole.arms:
        against = below.arm(arm.name).gain if arm.name in (SERVED, FLOAT) else None
        rows.append({
            "model": "control served" if arm.name == CONTROL else arm.name,
            "test AUC": f"{arm.auc.value:.4f}",
            "less control served": "" if arm.name == CONTROL else told(arm.gain),
            "gap closed": "" if arm.name in (CONTROL, TEACHER) else share(arm.gap),
            "less teacher": "" if against is None else told(against),
            "ECE": f"{arm.ece:.4f}",
            "by seed": " ".join(f"{value:.4f}" for value in arm.seeds),
        })  # fmt: skip
    served = next(row for row in rows if row["model"] == SERVED)
    served |= {"teacher / this": f"{1 / max(sizes):.1f}", "validation AUC": f"{np.mean(validation):.4f}"}
    return [{"teacher / this": "", "validation AUC": "", **row} for row in rows]


def main() -> None:
    """Print the table of every set."""
    for name in asked("shop,beauty,online_retail,ml1m"):
        with recipe_of(name) as base:
            rows = report(base)
            show(f"targets-{name}", rows)
            served = next(r for r in rows if r["model"] == SERVED)
            print(f"{name}: served less control {served['less control served']}, gap {served['gap closed']}; "
                  f"less teacher {served['less teacher']}, margin {MARGIN}")  # fmt: skip


if __name__ == "__main__":
    main()
