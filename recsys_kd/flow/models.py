"""Stages that train: teacher, soft labels, control and student. Each is a function of what it needs, nothing more."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from recsys_kd.batch import Batch, RankingModel
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.calibration import Platt, fit_platt
from recsys_kd.distil.checkpoint import Checkpoints
from recsys_kd.distil.loop import Fit, score_rows, scored
from recsys_kd.distil.mixing import fit_gate
from recsys_kd.distil.slices import calibrate_slices
from recsys_kd.distil.soft_labels import load_soft_labels, make_soft_labels, save_soft_labels
from recsys_kd.distil.student_training import fit_student
from recsys_kd.errors import InputError
from recsys_kd.flow.cache import CHECKPOINT
from recsys_kd.flow.floats import Warm
from recsys_kd.flow.starts import begin, own_teacher
from recsys_kd.models.ensemble import Ensemble
from recsys_kd.models.plugins import find_teacher
from recsys_kd.models.student import Student
from recsys_kd.progress import Progress
from recsys_kd.schema import Schema
from recsys_kd.settings import Recipe, TeacherConfig

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_GROUPS = ("timestamp", "request")
_WILD = 1_000_000
"""No model's score is larger: float32 numbers beyond lie too far apart, and stand for missing ones in many logs."""


def _write_fit(folder: Path, fit: Fit, **more: Any) -> None:
    (folder / "fit.json").write_text(json.dumps({"epochs": [asdict(e) for e in fit.epochs], "best": fit.best, **more}))


def read_fit(folder: Path) -> dict[str, Any]:
    """Return the loss curves of a training stage; no epochs where nothing was trained."""
    path = folder / "fit.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"epochs": [], "best": 0}
    return found


class NotLogits(InputError):
    """A precomputed teacher's scores are beyond what any model says."""


class NotProbabilities(InputError):
    """A precomputed teacher's probabilities are not."""


class LoggedTeacher:
    """A teacher known by its logits for every row of the log: the shop's own scores, or a plugged-in model's."""

    def __init__(self, dataset: Dataset, logits: Floats) -> None:
        self.schema = dataset.schema
        self.row_id = dataset.column("row_id").astype(np.int64)
        self.order = np.argsort(self.row_id)
        self.logits = logits

    def score(self, batch: Batch) -> Floats:
        """Return the logits of the batch's rows [B]."""
        at = np.searchsorted(self.row_id, batch.row_id, sorter=self.order)
        found: Floats = self.logits[self.order[at]]
        return found


def logged_logits(dataset: Dataset, recipe: Recipe) -> Floats:
    """Return the precomputed teacher's logits for every row [N]."""
    values = np.asarray(dataset.column("teacher"), dtype=np.float32)
    if recipe.teacher.scores == "logit":
        wild = int((np.abs(values) > _WILD).sum())
        if wild:
            raise NotLogits(
                f"teacher.column: '{recipe.teacher.column}' holds {wild:,} values beyond +-{_WILD:,} among "
                f"{len(values):,}, the largest {np.nanmax(np.abs(values)):.3g}, so they are not logits (nor any scores "
                "that calibration could use): leave such rows' scores empty, or log others"
            )
        return values
    outside = int(((values < 0) | (values > 1)).sum())
    if outside:
        raise NotProbabilities(
            f"teacher.column: '{recipe.teacher.column}' holds {outside:,} values outside [0, 1] among {len(values):,}, "
            "so they are not probabilities; for logits set teacher.scores: logit"
        )
    p = np.clip(values, 1e-6, 1 - 1e-6)
    logit: Floats = np.log(p / (1 - p)).astype(np.float32)
    return logit


def train_teacher(recipe: Recipe, dataset: Dataset, folder: Path, progress: Progress) -> None:
    """Train the teacher on all training days and save it, or what it says of every row, under `folder`."""
    if recipe.teacher.kind != "dcnv2":
        train = dataset.splits["train"]
        model = find_teacher(recipe.teacher.kind)(
            dataset, np.arange(train.start, train.stop), dataset.splits["validation"], recipe.seed
        )
        np.save(folder / "logits.npy", score_rows(model, dataset, range(len(dataset))))
        return
    from recsys_kd.distil.teacher_training import fit_teacher  # TorchRec takes seconds to load: only where it trains

    fitted = fit_teacher(
        dataset, recipe.teacher, dataset.splits["train"], dataset.splits["validation"], recipe.seed, progress,
        checkpoints=Checkpoints(folder / CHECKPOINT),
    )  # fmt: skip
    fitted.model.save(folder / "teacher")
    _write_fit(folder, fitted.fit)


def soft_labels(recipe: Recipe, dataset: Dataset, teacher: Path | None, folder: Path, progress: Progress) -> None:
    """Store the teacher's logits of the training rows, by the recipe's protocol.

    The partial teachers train for as many epochs as was best for the whole one, in the stage folder `teacher`.
    """
    rows = dataset.splits["train"]
    row_id = dataset.column("row_id")[rows.start : rows.stop].astype(np.int64)
    if recipe.teacher.kind == "precomputed":
        logits = logged_logits(dataset, recipe)[rows.start : rows.stop]
        digests = ["precomputed"]
    else:
        epochs = recipe.teacher.epochs if teacher is None else read_fit(teacher)["best"] + 1
        config = recipe.teacher.model_copy(update={"epochs": epochs})
        said = np.full((len(rows), recipe.soft_labels.members), np.nan, dtype=np.float32)

        def fit_and_score(train: Rows, score: Rows, name: str) -> tuple[Floats, str]:
            digests = []
            for member in range(recipe.soft_labels.members):
                # Seeds of a study's members must not be those of its other seeds.
                seed, words = recipe.seed + 1000 * member, f"teacher, {name}" + f", member {member + 1}" * (member > 0)
                model, digest = _of_rows(dataset, config, train, seed, folder, progress, words)
                said[score - rows.start, member] = score_rows(model, dataset, score)
                digests.append(digest)
            return said[score - rows.start].mean(axis=1), "+".join(digests)

        if recipe.soft_labels.protocol == "in_sample":
            progress.note("warning: in_sample soft labels come from a teacher that has seen these very labels")
        times, requests = (np.asarray(dataset.column(c)[rows.start : rows.stop], np.int64) for c in _GROUPS)
        logits, digests = make_soft_labels(recipe.soft_labels, rows, recipe.seed, times, requests, fit_and_score)
        if recipe.soft_labels.mix == "gated":
            logits = _gated(dataset, rows, said, progress)
    save_soft_labels(folder / "soft_labels.parquet", row_id, logits, digests, dataset.schema.fingerprint)


def _of_rows(
    dataset: Dataset, config: TeacherConfig, train: Rows, seed: int, folder: Path, progress: Progress, name: str
) -> tuple[RankingModel, str]:
    """Return a teacher of some training rows and its digest, saved in the stage folder; of a plug-in, its name."""
    validation = dataset.splits["validation"]
    if config.kind != "dcnv2":
        return find_teacher(config.kind)(dataset, train, validation, seed), config.kind
    from recsys_kd.distil.teacher_training import fit_teacher

    where = folder / f"teacher-{len(list(folder.glob('teacher-*')))}"
    kept = Checkpoints(folder / CHECKPOINT / where.name)
    fitted = fit_teacher(dataset, config, train, validation, seed, progress, name, kept)
    return fitted.model, fitted.model.save(where)


def _gated(dataset: Dataset, rows: range, said: Floats, progress: Progress) -> Floats:
    """Return the members' logits [N, M] mixed by a gate [N], NaN where none has scored a row."""
    known = np.isfinite(said).all(axis=1)
    label, weight = (np.asarray(dataset.column(c)[rows.start : rows.stop], np.float32) for c in ("label", "weight"))
    gate = fit_gate(said[known], label[known], weight[known])
    low, high = np.quantile(gate.weights(said[known]).max(axis=1), (0.05, 0.95))
    progress.note(f"soft labels: the gate gives the member it believes most a weight of {low:.2f} to {high:.2f}")
    mixed = np.full(len(said), np.nan, dtype=np.float32)
    mixed[known] = gate(said[known])
    return mixed


def calibrated_soft_labels(dataset: Dataset, folder: Path, seen_until: int = 0, slices: tuple[str, ...] = ()) -> Floats:
    """Return calibrated teacher logits aligned with all rows [N], NaN where there is none.

    What they are calibrated on are the rows they label, which their teachers have not learned. slices: categorical
    fields, for whose values they are then calibrated once more, one field after the other.

    Rows before `seen_until`, ms UTC, have taught the teacher: what it says of them is not taken.
    """
    rows = dataset.splits["train"]
    row_id = dataset.column("row_id")[rows.start : rows.stop].astype(np.int64)
    logits = load_soft_labels(folder / "soft_labels.parquet", row_id, dataset.schema.fingerprint)
    taught = np.asarray(dataset.column("timestamp")[rows.start : rows.stop]) < seen_until
    logits = np.where(taught, np.float32(np.nan), logits)
    known = np.isfinite(logits)
    label = np.asarray(dataset.column("label")[rows.start : rows.stop], dtype=np.float32)
    weight = np.asarray(dataset.column("weight")[rows.start : rows.stop], dtype=np.float32)
    found = fit_platt(logits[known], label[known], weight[known])(logits)
    for name in slices:
        of_row = dataset.category(name)[rows.start : rows.stop]
        found = calibrate_slices(found, label, np.where(known, weight, np.float32(0)), of_row)
    out = np.full(len(dataset), np.nan, dtype=np.float32)
    out[rows.start : rows.stop] = found
    return out


def train_student(
    recipe: Recipe,
    dataset: Dataset,
    soft: Floats | None,
    folder: Path,
    progress: Progress,
    name: str,
    teacher: Path | None = None,
    warm: Warm | None = None,
) -> None:
    """Train a student (or, without soft labels, the control), calibrate it on validation, and save it.

    `teacher`: the stage folder of the teacher whose features or tables the recipe asks for, if it does. `warm`: the
    past student to go on from, with the rows that it has not seen.
    """
    if warm is not None:
        progress.note(f"{name}: goes on from {warm.digest[:12]} with {len(warm.rows(dataset)):,} new rows")
    validation = dataset.splits["validation"]
    fitted = fit_student(
        dataset,
        recipe.student if warm is None else warm.config(recipe.student),
        recipe.distil,
        soft,
        rows=dataset.splits["train"] if warm is None else warm.rows(dataset),
        validation=validation,
        seed=recipe.seed,
        progress=progress,
        name=name,
        checkpoints=Checkpoints(folder / CHECKPOINT),
        teacher=own_teacher(teacher) if teacher and recipe.distil.over_features else None,
        start=begin(recipe, dataset, teacher) if warm is None else partial(warm.into, dataset=dataset),
    )
    platt = calibrate(fitted.model, dataset)
    save_file(fitted.model.state_dict(), folder / "student.safetensors")
    _write_fit(folder, fitted.fit, platt=asdict(platt), mix=fitted.mix._asdict())


def calibrate(model: RankingModel, dataset: Dataset) -> Platt:
    """Return the Platt scaling of a model on the validation rows."""
    found = scored(model, dataset, dataset.splits["validation"])
    return fit_platt(found.logit, found.label, found.weight)


def load_student(recipe: Recipe, schema: Schema, folder: Path) -> tuple[Student, Platt]:
    """Return a saved student and its calibration."""
    model = Student(schema, recipe.student)
    model.load_state_dict(load_file(folder / "student.safetensors"))
    return model, Platt(**read_fit(folder)["platt"])


@dataclass(frozen=True)
class LoadedTeacher:
    """The teacher as evaluation needs it."""

    model: RankingModel
    digest: str
    bytes: int


def load_teacher(recipe: Recipe, dataset: Dataset, folder: Path, soft_labels: Path) -> LoadedTeacher:
    """Return the teacher of a run, a bag with those in the stage folder `soft_labels`; a logged one has no bytes."""
    if recipe.teacher.kind == "precomputed":
        return LoadedTeacher(LoggedTeacher(dataset, logged_logits(dataset, recipe)), "precomputed", 0)
    if recipe.teacher.kind != "dcnv2":
        logits = np.load(folder / "logits.npy")
        return LoadedTeacher(LoggedTeacher(dataset, logits), recipe.teacher.kind, 0)
    paths = [folder / "teacher", *(sorted(soft_labels.glob("teacher-*")) if recipe.teacher.bag else ())]
    size = sum(p.stat().st_size for path in paths for p in path.iterdir())
    from recsys_kd.models.teacher import Teacher, teacher_digest

    members = [Teacher.load(path) for path in paths]
    digests = [teacher_digest(path) for path in paths]
    if len(paths) == 1:
        return LoadedTeacher(members[0], digests[0], size)
    return LoadedTeacher(Ensemble(members), hashlib.sha256("".join(digests).encode()).hexdigest(), size)


def teacher_bytes(recipe: Recipe, schema: Schema) -> int:
    """Return what a teacher of this schema will weigh, before it is trained."""
    if recipe.teacher.kind != "dcnv2":
        return 0
    from recsys_kd.models.teacher import Teacher, table_bytes

    with torch.device("meta"):
        one = Teacher(schema, recipe.teacher, nn.Identity()).bytes_in_memory() + table_bytes(schema, recipe.teacher)
    return one * (1 + recipe.soft_labels.teachers if recipe.teacher.bag else 1)
