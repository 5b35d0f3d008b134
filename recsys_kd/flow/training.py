"""The training stages of a night, each run once for what it depends on: teacher, soft labels, control, student."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from recsys_kd.batch import RankingModel
from recsys_kd.data.dataset import Dataset
from recsys_kd.flow import models
from recsys_kd.flow.assistants import assistant_labels, load_assistants
from recsys_kd.flow.cache import Stages, key_of
from recsys_kd.flow.decidable import seen_until
from recsys_kd.flow.evaluation import Calibrated
from recsys_kd.flow.floats import Warm
from recsys_kd.flow.guard import why_untaught
from recsys_kd.flow.provenance import teacher_code
from recsys_kd.models.student import Student
from recsys_kd.settings import Recipe


@dataclass(frozen=True)
class Trained:
    """The three models of a night, and the stage folders that hold them."""

    teacher: models.LoadedTeacher
    student: Calibrated
    control: Calibrated
    folders: dict[str, Path]
    soft: models.Floats | None
    """Calibrated teacher logits of every row, NaN where there are none; None where the student fell back."""
    untaught: str | None
    """Why the teacher was not believed, and the student is the control."""


@dataclass(frozen=True)
class Lesson:
    """What students can learn from: the stage folders `teacher` (where one is trained) and `soft labels`.

    `labels` is the folder of what is learned: the soft labels, or what the last round's assistants said.
    """

    folders: dict[str, Path]
    key: str
    soft: models.Floats
    assistants: RankingModel | None = None
    """What the last round's assistants say of the validation rows."""


def log_key(recipe: Recipe, data_key: str) -> str:
    """Return the key of what all training depends on; `data_key` is the digest of all that the encoded log holds."""
    # Sums are added up in another order by another number of threads, so the result is another one.
    return key_of(data_key, recipe.seed, torch.get_num_threads())


def teach(recipe: Recipe, dataset: Dataset, log: str, stages: Stages) -> Lesson:
    """Run the teacher's stages, or reuse them."""
    folders = {}
    settings = recipe.teacher.model_dump(exclude={"bag"})  # a bag is made of teachers that are trained all the same
    base = key_of(log, settings, teacher_code(recipe.teacher.kind))
    if recipe.teacher.kind != "precomputed":
        folders["teacher"] = stages.run(
            "teacher", base, lambda out: models.train_teacher(recipe, dataset, out, stages.progress)
        )
    key, whole = key_of(base, recipe.soft_labels.model_dump(exclude={"slices"})), folders.get("teacher")
    folders["soft labels"] = folders["labels"] = stages.run(
        "soft-labels", key, lambda out: models.soft_labels(recipe, dataset, whole, out, stages.progress)
    )
    lesson = _lesson(recipe, dataset, folders, key, seen_until(recipe))
    for round_ in range(2, recipe.distil.rounds + 1):
        lesson = _next_round(recipe, dataset, lesson, stages, round_)
    return lesson


def _lesson(recipe: Recipe, dataset: Dataset, folders: dict[str, Path], key: str, seen: int = 0) -> Lesson:
    slices = recipe.soft_labels.slices
    soft = models.calibrated_soft_labels(dataset, folders["labels"], seen, slices)
    return Lesson(folders, key_of(key, slices), soft)


def _next_round(recipe: Recipe, dataset: Dataset, lesson: Lesson, stages: Stages, round_: int) -> Lesson:
    """Return the labels of assistants that learned from `lesson`."""
    key, teacher = key_of(lesson.key, recipe.student, recipe.distil, round_), lesson.folders.get("teacher")
    labels = stages.run(
        "assistant-labels",
        key,
        lambda out: assistant_labels(recipe, dataset, lesson.soft, out, stages.progress, teacher),
    )
    said = load_assistants(dataset, labels)
    return replace(_lesson(recipe, dataset, {**lesson.folders, "labels": labels}, key), assistants=said)


def train_control(recipe: Recipe, dataset: Dataset, log: str, stages: Stages) -> Path:
    """Run the control's stage, or reuse it: always from chance and on all rows, to tell what a warm start has lost."""
    key = key_of(log, recipe.student.model_dump(exclude={"init", "warm_start"}))
    return stages.run(
        "control", key, lambda out: models.train_student(recipe, dataset, None, out, stages.progress, "control")
    )


def train_student(
    recipe: Recipe,
    dataset: Dataset,
    log: str,
    lesson: Lesson,
    stages: Stages,
    name: str = "student",
    warm: Warm | None = None,
) -> Path:
    """Run a student's stage, or reuse it; `name` is what progress calls it, `warm` the past student to go on from."""
    settings = recipe.student.model_dump(exclude={"warm_start"})
    key = key_of(key_of(log, settings), lesson.key, recipe.distil, warm and [warm.digest, warm.until])
    teacher = lesson.folders.get("teacher")
    return stages.run(
        "student",
        key,
        lambda out: models.train_student(recipe, dataset, lesson.soft, out, stages.progress, name, teacher, warm),
    )


def train(recipe: Recipe, dataset: Dataset, data_key: str, stages: Stages, warm: Warm | None = None) -> Trained:
    """Run the training stages, or reuse them; `warm`: the past student to go on from.

    A teacher that is not to be believed leaves the control in charge.
    """
    log = log_key(recipe, data_key)
    lesson = teach(recipe, dataset, log, stages)
    folders = {name: folder for name, folder in lesson.folders.items() if name != "labels"}
    folders["control"] = train_control(recipe, dataset, log, stages)
    teacher = models.load_teacher(recipe, dataset, folders.get("teacher", Path()), folders["soft labels"])
    control = Calibrated(*models.load_student(recipe, dataset.schema, folders["control"]))
    untaught = why_untaught(recipe, dataset, teacher.model, control.model, lesson.soft, lesson.assistants)
    if untaught:
        stages.progress.note(f"warning: {untaught}")
        return Trained(teacher, control, control, {**folders, "student": folders["control"]}, None, untaught)
    folders["student"] = train_student(recipe, dataset, log, lesson, stages, warm=warm)
    student = Calibrated(*models.load_student(recipe, dataset.schema, folders["student"]))
    return Trained(teacher, student, control, folders, lesson.soft, None)


def student_of(trained: Calibrated) -> Student:
    """Return the student of a student stage."""
    if not isinstance(trained.model, Student):
        raise TypeError("the student stage holds no student")
    return trained.model
