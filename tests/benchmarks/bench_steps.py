"""What each step of compression costs alone: 8 bits, 4 bits, 4 bits with a hot tier, half of the rows pruned (at once,
in steps, by lookups alone); against the float student on the test days, before recovery and after, rows rounded as they
are served.

BENCH_SETS, BENCH_ROWS, BENCH_SEEDS and BENCH_WORK as in `sets`.
"""

from collections.abc import Iterator

import numpy as np

from recsys_kd.cli.display import PlainProgress
from recsys_kd.compress.export import quantized
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.loop import score_rows
from recsys_kd.evaluate.evaluation import difference
from recsys_kd.evaluate.metrics import auc
from recsys_kd.flow import compression
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.calibrating import recalibrated, score_sample
from recsys_kd.flow.evaluation import test_sample
from recsys_kd.flow.night import read
from recsys_kd.flow.probing import code
from recsys_kd.flow.recovery import recovery_stage
from recsys_kd.flow.training import Trained, student_of, train
from recsys_kd.settings import CompressConfig, Recipe, RecoveryConfig
from tests.benchmarks.sets import asked, recipe_of, seeds_of
from tests.benchmarks.table import show

STEPS = {
    "8 bits": CompressConfig(keep_rows=1.0, bits=(8,)),
    "4 bits": CompressConfig(keep_rows=1.0, bits=(4,)),
    "4 bits, a fifth of the rows hot": CompressConfig(keep_rows=1.0, bits=(4,), hot_rows=0.2),
    "half of the rows, 8 bits": CompressConfig(keep_rows=0.5, bits=(8,)),
    "the same, in three steps": CompressConfig(keep_rows=0.5, bits=(8,), recovery=RecoveryConfig(steps=3)),
    "the same, by lookups alone": CompressConfig(keep_rows=0.5, bits=(8,), keep_by="lookups"),
}


def steps(recipe: Recipe, dataset: Dataset, trained: Trained, stages: Stages) -> Iterator[dict[str, str]]:
    """Yield what each step costs, as rows of a table."""
    student, sample = student_of(trained.student), test_sample(dataset)
    rows = np.arange(dataset.splits["test"].start, dataset.splits["test"].stop)
    start = auc(score_rows(student, dataset, dataset.splits["test"]), sample)
    recover = recovery_stage(recipe, dataset, trained.soft, trained.folders["student"], stages, "student-recovery")
    coded = code(student, dataset, CompressConfig())
    for name, config in STEPS.items():
        pruned = compression.prune(coded, dataset, config, None)
        made = compression.finish(pruned, dataset, recover, config.recovery.steps)
        found = {"step": name, "seed": str(recipe.seed), "bytes": f"{pruned.plan.predicted_bytes:,}"}
        rounded = recalibrated(quantized(pruned.student), dataset)
        for column, model in (("AUC before recovery", rounded), ("AUC as served", made.served)):
            gap = difference(auc(score_sample(model, dataset, rows), sample), start, recipe.evaluate.confidence)
            found[column] = f"{gap.value:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        yield found


def main() -> None:
    """Print every set's table: test AUC less that of the float student, with intervals clustered by user."""
    for name in asked("shop"):
        with recipe_of(name) as base:
            found, stages = [], Stages(base.work, PlainProgress())
            dataset, digest = read(base, stages)
            for recipe in seeds_of(base):
                found += steps(recipe, dataset, train(recipe, dataset, digest, stages), stages)
            show(f"steps-{name}", found)


if __name__ == "__main__":
    main()
