"""Two moons: the whole chain on the smallest case, beside the chain that a well-known article printed for it.

The article: two features, 1,000 samples, a teacher of 100-100 units, a student of 10; its weights below 0.1 are set to
zero and the rest rounded to steps of 0.01. Its table says 90, 85, 80 and 75% accuracy. Here the same sizes go through
the night's own stages (a dense-only model has one user and one item, whose rows hold nothing), and the article's steps
are done to students of the same form, so that the difference is theirs alone.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from recsys_kd.artifact.read import open_artifact
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.student_training import fit_student
from recsys_kd.flow import compression, models
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.evaluation import Calibrated, score_compiled, score_test, test_sample
from recsys_kd.flow.night import compress, read
from recsys_kd.flow.training import Trained, train
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import Recipe, parse_recipe
from recsys_kd.tables import CompiledStudent

Floats = NDArray[np.float32]
SAMPLES, TEST = 1_000, 4_000
THRESHOLD, STEP = 0.1, 0.01
_VALIDATION, _NOISE = 200, 0.2
_HURRIED = {"lr": 0.001, "epochs": 20, "patience": 20}
_UNITS = 10.0
STEPS = {
    "teacher": "100-100 units",
    "student": "10 units, taught by the teacher",
    "served": "int8, a scale per row, fitted once more, from its files on disk",
    "article student": "the same 10 units, stopped after 20 slow passes",
    "article pruned": f"its weights below {THRESHOLD} set to zero",
    "article rounded": f"the rest rounded to steps of {STEP}",
    "other units": f"both steps on our student, its features measured in units {_UNITS:g} times smaller",
}
"""What is measured -> what it is."""


def two_moons(rows: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return points [rows, 2] on two interleaved half circles with noise of 0.2, and which half [rows].

    Source: scikit-learn's `make_moons`.
    """
    label = rng.integers(0, 2, rows).astype(np.int8)
    angle = rng.uniform(0, np.pi, rows)
    x = np.where(label, 1 - np.cos(angle), np.cos(angle))
    y = np.where(label, 0.5 - np.sin(angle), np.sin(angle))
    return np.stack([x, y], axis=1) + rng.normal(0, _NOISE, (rows, 2)), label


def write_log(folder: Path, seed: int) -> Recipe:
    """Write a log of 800 training, 200 validation and 4,000 test points under `folder`, and return its recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    x, label = two_moons(SAMPLES + TEST, np.random.default_rng(seed))
    split = np.repeat(["train", "validation", "test"], [SAMPLES - _VALIDATION, _VALIDATION, TEST])
    nobody = np.zeros(len(x), dtype=np.int64)
    log = {"user_id": nobody, "item_id": nobody, "timestamp": np.arange(len(x)) * 60, "label": label, "split": split}
    pq.write_table(pa.table({**log, "x1": x[:, 0], "x2": x[:, 1]}), folder / "log.parquet", write_page_checksum=True)
    return toy_recipe(folder, seed)


def toy_recipe(folder: Path, seed: int) -> Recipe:
    """Return the recipe: the article's sizes, enough passes for 800 rows, all weights in int8."""
    patient = {"batch_size": 64, "epochs": 60, "patience": 10}
    fields = [{"name": name, "side": "candidate", "kind": "dense"} for name in ("x1", "x2")]
    plain = {
        "name": "toy", "seed": seed, "threads": 1, "data": {"path": "log.parquet", "fields": fields},
        "split": {"column": "split"}, "soft_labels": {"protocol": "cross_fitted", "blocks": 2},
        "teacher": {"hidden": [100, 100], "width": 4, "cross_layers": 0, "dropout": 0.0, "dense_lr": 0.005, **patient},
        "student": {"hidden": [10], "width": 1, "lr": 0.03, **patient},
        "compress": {"keep_rows": 1.0, "recovery": {"epochs": 10, "batch_size": 64}},
    }  # fmt: skip
    return parse_recipe(plain, "the toy's recipe", folder)


@dataclass(frozen=True)
class Toy:
    """Accuracy in percent per step [seeds], and the share of weights that the article's threshold removes."""

    accuracy: dict[str, list[float]]
    removed: float
    seeds: int

    def lost(self) -> list[float]:
        """Return the points from teacher to served artifact, seed by seed."""
        return [t - s for t, s in zip(self.accuracy["teacher"], self.accuracy["served"], strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {**asdict(self), "lost": self.lost(), "why": self.why()}

    def why(self) -> str:
        """Return where the article's 15 points go, in the words of what was measured."""
        mean = {name: float(np.mean(values)) for name, values in self.accuracy.items()}
        early, cut, rounded = (
            mean[before] - mean[after]
            for before, after in pairwise(("teacher", "article student", "article pruned", "article rounded"))
        )
        return (
            f"Why the article's chain loses 15 points (here {early + cut + rounded:.1f}): its student stops too early, "
            f"which alone costs {early:.1f}. "
            f"Zeroing weights below {THRESHOLD} removes {self.removed:.0%} of them and costs {cut:.1f} more, rounding "
            f"to {STEP} costs {rounded:.1f} more, as long as weights happen to be about 1. But both sizes are "
            f"absolute: with features in units {_UNITS:g} times smaller the same function has smaller first "
            f"weights, and both steps leave {mean['other units']:.1f}% of {mean['student']:.1f}%. Nothing is fitted "
            "after either step. Our chain trains until validation stops rising, takes features by their own spread, "
            "gives every row a scale of its own, and fits once more, which it keeps if validation is better for it."
        )

    def lines(self) -> list[str]:
        """Return the table and the explanation as text."""
        out = [f"two moons, {SAMPLES:,} samples, {TEST:,} fresh test points, {self.seeds} seed(s): accuracy in %"]
        for name, values in self.accuracy.items():
            out.append(f"{name:<16} {np.mean(values):6.2f}  (worst {min(values):5.1f})  {STEPS[name]}")
        lost = self.lost()
        out.append(f"teacher to served artifact: {np.mean(lost):+.2f} points lost, {max(lost):+.2f} at worst")
        return [*out, self.why()]


def toy(seeds: int, progress: Progress, first: int = 0) -> Toy:
    """Run the chain with `seeds` seeds from `first` on, each in a folder of its own that is removed."""
    accuracy: dict[str, list[float]] = {name: [] for name in STEPS}
    removed = []
    with progress.task("toy", seeds, "seeds") as bar:
        for seed in range(first, first + seeds):
            with tempfile.TemporaryDirectory() as folder:
                found, share = one(Path(folder), seed)
            for name, value in found.items():
                accuracy[name].append(value)
            removed.append(share)
            bar.advance(1)
    return Toy(accuracy, float(np.mean(removed)), seeds)


def one(folder: Path, seed: int) -> tuple[dict[str, float], float]:
    """Return a seed's accuracies, and the share of the hurried student's weights that the threshold removes."""
    recipe = write_log(folder, seed)
    torch.set_num_threads(1)
    stages = Stages(recipe.work, SILENT)
    dataset, data_digest = read(recipe, stages)
    trained = train(recipe, dataset, data_digest, stages)
    label = test_sample(dataset).label > 0

    def accuracy(logit: Floats) -> float:
        return float(100 * ((logit > 0) == label).mean())

    ours = chain(recipe, dataset, trained, stages)
    theirs, share = article(recipe, dataset, ours["student"])
    teacher = Calibrated(trained.teacher.model, models.calibrate(trained.teacher.model, dataset))
    found = {"teacher": accuracy(score_test(teacher, dataset))}
    return found | {n: accuracy(score_compiled(s, dataset)[0]) for n, s in {**ours, **theirs}.items()}, share


def chain(recipe: Recipe, dataset: Dataset, trained: Trained, stages: Stages) -> dict[str, CompiledStudent]:
    """Return the float student, and the served one as it is read from its files."""
    made = compress(recipe, dataset, trained, stages, "student")
    digests = dict.fromkeys(("data", "recipe", "teacher"), "0" * 64)
    artifact = compression.publish_artifact(recipe.store, recipe.name, made, dataset, digests, [])
    return {"student": made.pruned, "served": open_artifact(artifact.path)[1]}


def article(recipe: Recipe, dataset: Dataset, ours: CompiledStudent) -> tuple[dict[str, CompiledStudent], float]:
    """Return the article's students, and the share of weights that its threshold removes from the first of them."""
    config = recipe.student.model_copy(update=_HURRIED)
    train_rows, validation = dataset.splits["train"], dataset.splits["validation"]
    fitted = fit_student(dataset, config, recipe.distil, None, rows=train_rows, validation=validation, seed=recipe.seed)
    plain = recipe.compress.model_copy(update={"recovery": recipe.compress.recovery.model_copy(update={"epochs": 0})})
    start = compression.compress(fitted.model, dataset, plain, 0).pruned
    cut = changed(start, zeroed)
    weights = np.concatenate([start.arrays[name].ravel() for name in _weights(start)])
    made = {
        "article student": start,
        "article pruned": cut,
        "article rounded": changed(cut, in_steps),
        "other units": changed(ours, lambda w: in_steps(zeroed(w)), _UNITS),
    }
    return made, float((np.abs(weights) < THRESHOLD).mean())


def zeroed(weights: Floats) -> Floats:
    """Return weights with those below 0.1 set to zero: the article's pruning."""
    return np.where(np.abs(weights) < THRESHOLD, np.float32(0), weights)


def in_steps(weights: Floats) -> Floats:
    """Return weights rounded to multiples of 0.01: the article's quantization."""
    rounded: Floats = (np.rint(weights / STEP) * STEP).astype(np.float32)
    return rounded


def _weights(student: CompiledStudent) -> list[str]:
    return [name for name in student.arrays if name.split(".")[0] in ("first", "linear", "hidden", "out", "bias")]


def changed(student: CompiledStudent, change: Callable[[Floats], Floats], units: float = 1.0) -> CompiledStudent:
    """Return the student with its weights changed, those that features meet being `units` times smaller meanwhile."""
    arrays = dict(student.arrays)
    for name in _weights(student):
        size = np.float32(units if name.split(".")[0] in ("first", "linear") else 1.0)
        arrays[name] = change(arrays[name] / size) * size
    return replace(student, arrays=arrays)
