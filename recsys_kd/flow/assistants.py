"""Rounds: a student of the teacher labels the rows for the next student, which so learns from one nearer to itself.

Each round's assistants are cross-fitted (or out of time) as the teachers are, so that no row is labelled by one that
learned it; with the student's own width this is a born-again network, with a greater one a teaching assistant. What
they say of the validation rows is kept: assistants are teachers, and are believed as teachers are.
Sources: arXiv 1805.04770, arXiv 1902.03393.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.loop import score_rows
from recsys_kd.distil.soft_labels import make_soft_labels, save_soft_labels
from recsys_kd.distil.student_training import fit_student
from recsys_kd.flow.models import LoggedTeacher
from recsys_kd.flow.starts import own_teacher
from recsys_kd.models.student import Student
from recsys_kd.progress import Progress
from recsys_kd.settings import Recipe

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_VALIDATION = "validation.npy"


def assistant_labels(
    recipe: Recipe, dataset: Dataset, soft: Floats, folder: Path, progress: Progress, teacher: Path | None
) -> None:
    """Store what assistants, trained on calibrated logits `soft` [N], say of training and validation rows."""
    rows, validation = dataset.splits["train"], dataset.splits["validation"]
    width = recipe.distil.assistant_width or recipe.student.width
    config = recipe.student.model_copy(update={"width": width})
    shown = own_teacher(teacher) if teacher and recipe.distil.over_features else None
    later: list[Floats] = []

    def fit_and_score(train: Rows, score: Rows, name: str) -> tuple[Floats, str]:
        fitted = fit_student(
            dataset, config, recipe.distil, soft,
            rows=train, validation=validation, seed=recipe.seed, progress=progress,
            name=f"assistant, {name}", teacher=shown,
        )  # fmt: skip
        later.append(score_rows(fitted.model, dataset, validation))
        return score_rows(fitted.model, dataset, score), digest_of(fitted.model)

    times, requests = (
        np.asarray(dataset.column(c)[rows.start : rows.stop], np.int64) for c in ("timestamp", "request")
    )
    logits, digests = make_soft_labels(recipe.soft_labels, rows, recipe.seed, times, requests, fit_and_score)
    row_id = dataset.column("row_id")[rows.start : rows.stop].astype(np.int64)
    save_soft_labels(folder / "soft_labels.parquet", row_id, logits, digests, dataset.schema.fingerprint)
    # Out of time, each assistant has learned more days than the one before.
    last = recipe.soft_labels.protocol == "out_of_time"
    np.save(folder / _VALIDATION, later[-1] if last else np.mean(later, axis=0))


def load_assistants(dataset: Dataset, folder: Path) -> LoggedTeacher:
    """Return what the assistants of a stage folder say of the validation rows, NaN of others."""
    rows, logits = dataset.splits["validation"], np.full(len(dataset), np.nan, dtype=np.float32)
    logits[rows.start : rows.stop] = np.load(folder / _VALIDATION)
    return LoggedTeacher(dataset, logits)


def digest_of(model: Student) -> str:
    """Return the SHA-256 of a student's weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
    return found.hexdigest()
