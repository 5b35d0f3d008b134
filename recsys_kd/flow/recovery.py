"""The recovery stage: a pruned student is fitted once more, and kept if that helped."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.checkpoint import Checkpoints
from recsys_kd.distil.recovery import Training, recover
from recsys_kd.flow.cache import CHECKPOINT, Stages, key_of
from recsys_kd.flow.calibrating import served_auc
from recsys_kd.flow.compression import Recover
from recsys_kd.flow.probing import telling
from recsys_kd.flow.traffic import novelty
from recsys_kd.models.compiled import CompiledModule, float_rows
from recsys_kd.progress import Progress
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.settings import Recipe
from recsys_kd.tables import CompiledStudent, Float32Table

Floats = NDArray[np.float32]
_VALIDATION_ROWS = 262_144


def recovery_stage(
    recipe: Recipe, dataset: Dataset, soft: Floats | None, trained: Path, stages: Stages, name: str
) -> Recover:
    """Return a function that recovers a pruned student as a stage; `trained` is the stage that trained it.

    The stage is keyed by the pruned student's own bytes: rows that were kept for another plan are never put in.
    """
    if recipe.compress.recovery.epochs == 0:
        return lambda pruned: pruned

    def run(pruned: CompiledStudent) -> CompiledStudent:
        key = key_of(trained.name, digest_of(pruned), recipe.compress.recovery, recipe.distil, recipe.seed)
        folder = stages.run(name, key, lambda out: _make(recipe, dataset, soft, pruned, out, stages.progress, name))
        return _loaded(pruned, folder)

    return run


def digest_of(student: CompiledStudent) -> str:
    """Return the SHA-256 of a student's rows, how they are to be coded, keys and arrays."""
    found = hashlib.sha256()
    for name in sorted(student.tables):
        table, index = student.tables[name], student.indexes[name]
        for part in (table.lookup(np.arange(table.rows)), index.starts, index.rests):
            found.update(np.ascontiguousarray(part).tobytes())
        if isinstance(table, Float32Table):
            found.update(f"{table.code} {None if table.hot is None else table.hot.tobytes()!r}".encode())
    for name in sorted(student.arrays):
        found.update(name.encode() + np.ascontiguousarray(student.arrays[name]).tobytes())
    return found.hexdigest()


def _make(
    recipe: Recipe,
    dataset: Dataset,
    soft: Floats | None,
    pruned: CompiledStudent,
    folder: Path,
    progress: Progress,
    name: str,
) -> None:
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    rows = np.arange(train.start, train.stop)
    sample = telling(dataset.column("label"), validation, _VALIDATION_ROWS)
    judge = partial(served_auc, dataset=dataset, sample=sample)
    data = Training(dataset, dataset.item_rows, rows, judge, soft, novelty(dataset))
    module = CompiledModule(pruned, OfflineModel(pruned, dataset).moves, recipe.compress.recovery.aware)
    kept = Checkpoints(folder / CHECKPOINT)
    found = recover(module, data, recipe.compress.recovery, recipe.distil, recipe.seed, progress, name, kept)
    tables = {f"table.{t}": v.lookup(np.arange(v.rows)) for t, v in found.student.tables.items()}
    arrays = {f"array.{a}": v for a, v in found.student.arrays.items()}
    save_file({k: np.ascontiguousarray(v) for k, v in {**tables, **arrays}.items()}, folder / "recovered.safetensors")
    (folder / "fit.json").write_text(json.dumps({"before": found.before, "after": found.after, "kept": found.helped}))


def _loaded(pruned: CompiledStudent, folder: Path) -> CompiledStudent:
    """Return the pruned student with a finished stage's rows and arrays."""
    stored = load_file(folder / "recovered.safetensors")
    tables = {name: float_rows(table, stored[f"table.{name}"]) for name, table in pruned.tables.items()}
    return replace(pruned, tables=tables, arrays={name: stored[f"array.{name}"] for name in pruned.arrays})
