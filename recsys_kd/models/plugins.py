"""Teachers of other packages, found by entry point in the group `recsys_kd.teachers`.

An entry point names a function `fit(source, rows, validation, seed) -> RankingModel`: `source` is a `RowSource`, `rows`
int64 row numbers to learn from, `validation` a range for early stopping.
"""

from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np
from numpy.typing import NDArray

from recsys_kd.batch import RankingModel
from recsys_kd.errors import InputError
from recsys_kd.models.source import RowSource

GROUP = "recsys_kd.teachers"
BUILT_IN = ("dcnv2", "precomputed")
FitTeacher = Callable[[RowSource, NDArray[np.int64], range, int], RankingModel]


class UnknownTeacher(InputError):
    """No teacher of that kind is installed."""


def find_teacher(kind: str) -> FitTeacher:
    """Return the function that fits teachers of a kind. Raises: UnknownTeacher, naming those there are."""
    found = {e.name: e for e in entry_points(group=GROUP)}
    if kind not in found:
        known = ", ".join((*BUILT_IN, *sorted(found)))
        raise UnknownTeacher(f"teacher.kind: '{kind}' is none of: {known}; install the package that brings it")
    fit: FitTeacher = found[kind].load()
    return fit
