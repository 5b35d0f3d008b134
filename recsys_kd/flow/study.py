"""The ablation study: the same nights, but for one thing, side by side.

Every seed trains a teacher with its soft labels and a control, once, and then each arm's student: what is compared
within a seed differs in the arm alone. All of it are the stages of a night, so an interrupted study continues, and one
that is asked for more arms or seeds trains only those.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from recsys_kd.batch import RankingModel
from recsys_kd.data.dataset import Dataset
from recsys_kd.errors import InputError
from recsys_kd.evaluate.ablation import CONTROL, TEACHER, Ablation, ablation
from recsys_kd.flow import models
from recsys_kd.flow.cache import Stages, remove_leftovers
from recsys_kd.flow.checks import check
from recsys_kd.flow.evaluation import Calibrated, score_test, test_sample
from recsys_kd.flow.guard import ASSISTANTS, no_better
from recsys_kd.flow.night import read
from recsys_kd.flow.training import log_key, teach, train_control, train_student
from recsys_kd.progress import Progress
from recsys_kd.settings import OVER_FEATURES, LossName, Recipe

Floats = models.Floats


class UnknownArm(InputError):
    """The study has no such arm."""


@dataclass(frozen=True)
class Way:
    """One arm: what it is, and how its recipe differs from the one that is studied."""

    what: str
    change: Callable[[Recipe], Recipe]


def _with(section: str, **update: Any) -> Callable[[Recipe], Recipe]:
    def change(recipe: Recipe) -> Recipe:
        return recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=update)})

    return change


def _wider(recipe: Recipe) -> Recipe:
    return _with("distil", rounds=2, assistant_width=2 * recipe.student.width)(recipe)


def _alone(loss: LossName) -> Way:
    return Way(f"labels and {loss} alone, weight 1", _with("distil", losses={loss: 1.0}))


RECIPE = "recipe"
ARMS: dict[str, Way] = {
    RECIPE: Way("the recipe as it is", lambda recipe: recipe),
    **{name: _alone(name) for name in get_args(LossName)},
    "single_head": Way("soft labels on the serving head itself", _with("distil", head="single")),
    "ensemble": Way("soft labels of two teachers, the mean of their logits", _with("soft_labels", members=2)),
    "gated": Way("the same two, weighed by a gate per sample", _with("soft_labels", members=2, mix="gated")),
    "born_again": Way("a second round, labelled by students of the same width", _with("distil", rounds=2)),
    "assistant": Way("the same, by students twice as wide", _wider),
    "teacher_start": Way("tables start from the teacher's, not by chance", _with("student", init="auto")),
}
ONLY_OF_OURS = OVER_FEATURES | {"ensemble", "gated", "teacher_start"}
"""Arms that need teachers which a night trains itself."""


def arms_of(recipe: Recipe, asked: Sequence[str]) -> dict[str, Way]:
    """Return the arms asked for, all that this recipe's teacher can serve where none is. Raises: UnknownArm."""
    for name in asked:
        if name not in ARMS:
            raise UnknownArm(f"--arms: '{name}' is none of {', '.join(ARMS)}")
    if asked:
        return {name: ARMS[name] for name in dict.fromkeys(asked)}
    inside = recipe.teacher.kind == "dcnv2"
    return {name: way for name, way in ARMS.items() if inside or name not in ONLY_OF_OURS}


@dataclass(frozen=True)
class Study:
    """What a study found."""

    name: str
    found: Ablation
    what: dict[str, str]
    """Arm -> what it is."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {"name": self.name, **self.found.to_json(), "what": self.what, "warnings": list(self.warnings)}


def study(recipe: Recipe, seeds: int, asked: Sequence[str], progress: Progress) -> Study:
    """Train and measure all arms with `seeds` seeds, from the recipe's on. Raises what a night's training raises."""
    ways = arms_of(recipe, asked)
    for way in ways.values():
        check(way.change(recipe))
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    remove_leftovers(recipe.work)
    stages = Stages(recipe.work, progress)
    dataset, data_key = read(recipe, stages)
    used = [recipe.seed + i for i in range(seeds)]
    logits: dict[str, list[Floats]] = {name: [] for name in (TEACHER, CONTROL, *ways)}
    warnings = []
    with progress.task("study", seeds * len(ways), "students") as bar:
        for seed in used:
            mine = recipe.model_copy(update={"seed": seed})
            base = _base(mine, dataset, data_key, stages)
            warnings += [f"seed {seed}: {base.warning}"] if base.warning else []
            logits[TEACHER].append(base.teacher)
            logits[CONTROL].append(base.control)
            for name, way in ways.items():
                progress.note(f"study: {name}, seed {seed}")
                arm = _student(way.change(mine), dataset, data_key, stages, f"{name}, seed {seed}", base.rival)
                warnings += [f"{name}, seed {seed}: {arm.warning}"] if arm.warning else []
                logits[name].append(arm.logits)
                bar.advance(1)
    found = ablation(logits, test_sample(dataset), used, recipe.evaluate.confidence, bins=recipe.evaluate.ece_bins)
    what = {TEACHER: "the teacher itself", CONTROL: "labels alone", **{n: w.what for n, w in ways.items()}}
    return Study(recipe.name, found, what, tuple(warnings))


@dataclass(frozen=True)
class _Base:
    teacher: Floats
    control: Floats
    rival: RankingModel
    """The control itself."""
    warning: str | None


@dataclass(frozen=True)
class _Arm:
    logits: Floats
    warning: str | None


def _base(recipe: Recipe, dataset: Dataset, data_key: str, stages: Stages) -> _Base:
    """Return the test logits of a seed's teacher and control; a study goes on where a night would not be taught."""
    log = log_key(recipe, data_key)
    folders = teach(recipe, dataset, log, stages).folders
    teacher = models.load_teacher(recipe, dataset, folders.get("teacher", Path()), folders["soft labels"]).model
    control = Calibrated(*models.load_student(recipe, dataset.schema, train_control(recipe, dataset, log, stages)))
    return _Base(
        score_test(Calibrated(teacher, models.calibrate(teacher, dataset)), dataset),
        score_test(control, dataset),
        control.model,
        _fallen(no_better(recipe, dataset, teacher, control.model)),
    )


def _student(recipe: Recipe, dataset: Dataset, data_key: str, stages: Stages, name: str, control: RankingModel) -> _Arm:
    log = log_key(recipe, data_key)
    lesson = teach(recipe, dataset, log, stages)
    folder = train_student(recipe, dataset, log, lesson, stages, name)
    worse = no_better(recipe, dataset, lesson.assistants, control, ASSISTANTS) if lesson.assistants else None
    logits = score_test(Calibrated(*models.load_student(recipe, dataset.schema, folder)), dataset)
    return _Arm(logits, _fallen(worse))


def _fallen(reason: str | None) -> str | None:
    return reason and f"{reason}; a night would train its student as the control"
