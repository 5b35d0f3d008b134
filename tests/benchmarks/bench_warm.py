"""Nightly warm start beside a full retrain: seven nights of a drifting shop, metric and time.

Both train the same student on labels alone and are measured on the day after tomorrow of what they saw last (one day
for validation, one for test). The chain of warm students starts from one full training and never has another.
WARM_ROWS, WARM_DRIFT: the shop's rows over all days, and the share of every taste that a day renews.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from recsys_kd.data.dataset import Dataset
from recsys_kd.data.synth import synthesize
from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.evaluate.evaluation import difference
from recsys_kd.evaluate.metrics import auc
from recsys_kd.flow import models
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.evaluation import Calibrated, score_test, test_sample
from recsys_kd.flow.floats import Warm, find_warm, keep_float
from recsys_kd.flow.night import read
from recsys_kd.models.student import Student
from recsys_kd.progress import SILENT
from recsys_kd.settings import Recipe, SplitConfig, Window, load_recipe
from tests.benchmarks.table import show

NIGHTS, FIRST_DAYS = 7, 10
ROWS, DRIFT = int(os.environ.get("WARM_ROWS", "150000")), float(os.environ.get("WARM_DRIFT", "0.1"))


def night_of(recipe: Recipe, night: int) -> Recipe:
    """Return the recipe as of a night: it sees the first days, and one more with every night."""
    start = ShopConfig().start
    end = np.datetime64(start) + FIRST_DAYS + night
    data = recipe.data.model_copy(update={"window": Window(start=None, end=str(end)), "max_quarantine": 1.0})
    return recipe.model_copy(update={"data": data})


def train(recipe: Recipe, dataset: Dataset, warm: Warm | None) -> tuple[Calibrated, float, int]:
    """Return a student, its seconds, and how many rows it went through."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        models.train_student(recipe, dataset, None, Path(folder), SILENT, "student", warm=warm)
        epochs = len(models.read_fit(Path(folder))["epochs"])
        student = Calibrated(*models.load_student(recipe, dataset.schema, Path(folder)))
    rows = len(dataset.splits["train"]) if warm is None else len(warm.rows(dataset))
    return student, time.perf_counter() - began, rows * epochs


def one(recipe: Recipe, night: int) -> dict[str, object]:
    """Return a night's row: night 0 trains the chain's first student."""
    tonight = night_of(recipe, night)
    dataset = read(tonight, Stages(tonight.work, SILENT))[0]
    warm = find_warm(tonight, dataset, f"{night - 1}" if night else None, SILENT)
    found = {"full": train(tonight, dataset, None)}
    found["warm"] = train(tonight, dataset, warm) if warm else found["full"]
    student = found["warm"][0].model
    assert isinstance(student, Student) and (warm is not None) == (night > 0), "the chain is broken"
    keep_float(tonight, dataset, student, f"{night}", warm)
    sample = test_sample(dataset)
    measured = {name: auc(score_test(model, dataset), sample) for name, (model, _, _) in found.items()}
    gain = difference(measured["warm"], measured["full"], 0.95)
    seconds = {name: spent for name, (_, spent, _) in found.items()}
    return {
        "night": night,
        "full AUC": f"{measured['full'].value:.4f}",
        "warm AUC": f"{measured['warm'].value:.4f}",
        "warm - full": f"{gain.value:+.4f} ({gain.low:+.4f}, {gain.high:+.4f})",
        "full rows": f"{found['full'][2]:,}",
        "warm rows": f"{found['warm'][2]:,}",
        "full s": f"{seconds['full']:.1f}",
        "warm s": f"{seconds['warm']:.1f}",
        "times faster": f"{seconds['full'] / seconds['warm']:.1f}",
    }


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        days = FIRST_DAYS + NIGHTS
        shop = synthesize(ShopConfig(days=days, rows=ROWS, drift=DRIFT), Path(folder) / "shop")
        recipe = load_recipe(shop.recipe)
        student = recipe.student.model_copy(update={"warm_start": True, "epochs": 15, "batch_size": 512})
        split = SplitConfig(validation_days=1, test_days=1)
        root = {"work": Path(folder) / "work", "store": Path(folder) / "store", "student": student, "split": split}
        rows = [one(recipe.model_copy(update=root), night) for night in range(NIGHTS + 1)]
        show("warm-start", rows)


if __name__ == "__main__":
    main()
