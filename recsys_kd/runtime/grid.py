"""The first layer's weights of rows that are multiplied per candidate, on a grid of 16 bits.

Codes of a row are whole numbers, so with whole weights their sums are too: half the work of float32. A column's weights
are rounded to steps of its largest / 32767; h moves by some 1e-6. The student is rounded where it is opened, so that
every kernel, NumPy and evaluation from disk use the same numbers.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.tables import CompiledStudent, Term

Floats = NDArray[np.float32]
STEPS = 32767
WIDEST = 256
"""Numbers of a row whose whole sums stay within 32 bits: 256 * 255 * 32767 < 2^31."""


@dataclass(frozen=True)
class Grid:
    """values = codes * step: codes int16 [in, out], step float32 [out]."""

    codes: NDArray[np.int16]
    step: Floats

    @property
    def values(self) -> Floats:
        """The weights, float32 [in, out]."""
        values: Floats = self.codes.astype(np.float32) * self.step
        return values


def grid(weight: Floats) -> Grid:
    """Return weights [in, out] in whole steps; those of `Grid.values` are found again."""
    step = np.abs(weight).max(axis=0, initial=0.0) / np.float32(STEPS)
    codes = np.rint(weight / np.where(step > 0, step, np.float32(1.0))).clip(-STEPS, STEPS)
    return Grid(codes.astype(np.int16), step.astype(np.float32))


def is_whole(student: CompiledStudent, term: Term) -> bool:
    """Return whether a term's part of h is computed in whole numbers."""
    folded = term.side != "request" and term.kind == "row" and term.layout == "folded" and term.table is not None
    return folded and student.tables[term.table or ""].dim <= WIDEST


def on_grid(student: CompiledStudent) -> CompiledStudent:
    """Return the student with the weights of such terms rounded; a second time nothing changes."""
    arrays = dict(student.arrays)
    for term in student.terms:
        if is_whole(student, term):
            basis = arrays[f"basis.{term.view}"].copy()
            basis[:, : student.first] = grid(basis[:, : student.first]).values
            arrays[f"basis.{term.view}"] = basis
    return replace(student, arrays=arrays)
