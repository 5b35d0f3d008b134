"""The training stages of a night, each run once for what it depends on: teacher, soft labels, control, student."""

from dataclasses import dataclass
from pathlib import Path

import torch

from recsys_kd.data.dataset import Dataset
from recsys_kd.flow import models
from recsys_kd.flow.cache import Stages, key_of
from recsys_kd.flow.evaluation import Calibrated
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
    soft: models.Floats
    """Calibrated teacher logits of every row, NaN where there are none."""


def train(recipe: Recipe, dataset: Dataset, data_key: str, stages: Stages) -> Trained:
    """Run the training stages, or reuse them; `data_key` is the digest of all that the encoded log holds."""
    progress, folders = stages.progress, {}
    # Sums are added up in another order by another number of threads, so the result is another one.
    log = key_of(data_key, recipe.seed, torch.get_num_threads())
    settings = recipe.teacher.model_dump(exclude={"bag"})  # a bag is made of teachers that are trained all the same
    base = key_of(log, settings, teacher_code(recipe.teacher.kind))
    if recipe.teacher.kind != "precomputed":
        folders["teacher"] = stages.run(
            "teacher", base, lambda out: models.train_teacher(recipe, dataset, out, progress)
        )
    soft_key = key_of(base, recipe.soft_labels)
    folders["soft labels"] = stages.run(
        "soft-labels", soft_key, lambda out: models.soft_labels(recipe, dataset, folders.get("teacher"), out, progress)
    )
    control_key = key_of(log, recipe.student)
    folders["control"] = stages.run(
        "control", control_key, lambda out: models.train_student(recipe, dataset, None, out, progress, "control")
    )
    student_key = key_of(control_key, soft_key, recipe.distil)
    soft = models.calibrated_soft_labels(dataset, folders["soft labels"])
    folders["student"] = stages.run(
        "student", student_key, lambda out: models.train_student(recipe, dataset, soft, out, progress, "student")
    )
    return Trained(
        models.load_teacher(recipe, dataset, folders.get("teacher", Path()), folders["soft labels"]),
        Calibrated(*models.load_student(recipe, dataset.schema, folders["student"])),
        Calibrated(*models.load_student(recipe, dataset.schema, folders["control"])),
        folders,
        soft,
    )


def student_of(trained: Calibrated) -> Student:
    """Return the student of a student stage."""
    if not isinstance(trained.model, Student):
        raise TypeError("the student stage holds no student")
    return trained.model
