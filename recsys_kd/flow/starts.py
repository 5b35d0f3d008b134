"""Where a student starts from: chance, or its teacher's tables."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.projection import projected
from recsys_kd.models.student import Student
from recsys_kd.settings import Recipe

if TYPE_CHECKING:
    from recsys_kd.models.teacher import Teacher

Floats = NDArray[np.float32]


def own_teacher(stage: Path) -> "Teacher":
    """Return the teacher that a night trained, from its stage folder."""
    from recsys_kd.models.teacher import Teacher  # TorchRec takes seconds to load: not where the teacher is the shop's

    return Teacher.load(stage / "teacher")


def begin(recipe: Recipe, dataset: Dataset, teacher: Path | None) -> Callable[[Student], None] | None:
    """Return what puts the teacher's tables into a student, None for a random start."""
    start = start_of(recipe, dataset, teacher)
    return None if start is None else lambda student: student.start_from(start)


def start_of(recipe: Recipe, dataset: Dataset, teacher: Path | None) -> dict[str, Floats] | None:
    """Return embeddings by vocabulary to start from, of the teacher in a stage folder; None for a random start.

    They are scaled by the root of the teacher's factor on its pairwise term: the student's has none.
    """
    ours = recipe.teacher.kind == "dcnv2"
    if teacher is None or recipe.student.init == "random" or (recipe.student.init == "auto" and not ours):
        return None
    state = own_teacher(teacher).state()
    tables = {n.removeprefix("tables."): t.numpy() for n, t in state.items() if n.startswith("tables.")}
    traffic = {name: np.zeros(len(table)) for name, table in tables.items()}
    for field in dataset.schema.fields:
        if field.vocabulary is not None:
            traffic[field.vocabulary] += dataset.traffic(field.name)
    factor = float(np.sqrt(max(float(state["pair_scale"]), 0.0))) or 1.0
    return projected(tables, traffic, recipe.student.width, factor)
