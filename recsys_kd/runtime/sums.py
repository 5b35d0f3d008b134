"""What every term adds to (h, S, s). NumPy twin of the scoring rule; `head` turns the sums into logits.

An accumulator row is [h (H), S (d), s (1)], float32.
"""

import numpy as np
from numpy.typing import NDArray

from recsys_kd.batch import Bag
from recsys_kd.tables import CompiledStudent, Term

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def lookup(student: CompiledStudent, term: Term, rows: Rows) -> Floats:
    """Return the coordinates of table rows [N, r]."""
    return student.tables[term.table or ""].lookup(rows)


def view(student: CompiledStudent, term: Term, z: Floats) -> Floats:
    """Return the values [N, dim] that a term reads from coordinates [N, r]."""
    return z @ student.arrays[f"basis.{term.view}"] + student.arrays[f"mean.{term.view}"]


def _expand(student: CompiledStudent, term: Term, e: Floats, linear: Floats) -> Floats:
    """Return what embeddings [N, d] with linear weights [N] add, [N, H + d + 1]."""
    scalar = linear - 0.5 * np.einsum("nd,nd->n", e, e)
    return np.concatenate([e @ student.arrays[f"first.{term.name}"].T, e, scalar[:, None]], axis=1)


def _added(student: CompiledStudent, term: Term, values: Floats) -> Floats:
    """Return what the values read for a term add: they are that already where rows are folded."""
    return values if term.layout == "folded" else _expand(student, term, values[:, :-1], values[:, -1])


def row_term(student: CompiledStudent, term: Term, rows: Rows) -> Floats:
    """Return what one looked-up row per entry adds, [N, H + d + 1]."""
    return _added(student, term, view(student, term, lookup(student, term, rows)))


def bag_term(student: CompiledStudent, term: Term, bag: Bag) -> Floats:
    """Return what mean-pooled rows add; an empty bag adds nothing."""
    lengths = np.diff(bag.offsets)
    dim = len(student.arrays[f"mean.{term.view}"])
    pooled = np.zeros((len(lengths), dim), dtype=np.float32)
    full = np.flatnonzero(lengths)
    if len(full):
        sums = np.add.reduceat(lookup(student, term, bag.values), bag.offsets[full], axis=0)
        # A view is linear, so the mean of views is the view of the mean.
        pooled[full] = view(student, term, (sums / lengths[full, None]).astype(np.float32))
    return _added(student, term, pooled)


def dense_term(student: CompiledStudent, term: Term, x: Floats) -> Floats:
    """Return what standardized numbers [N, dim] add."""
    linear = x @ student.arrays[f"linear.{term.name}"]
    if term.kind == "vector":
        return _expand(student, term, x @ student.arrays[f"project.{term.name}"].T, linear)
    hidden = x @ student.arrays[f"first.{term.name}"].T
    return np.concatenate([hidden, np.zeros((len(x), student.width), np.float32), linear[:, None]], axis=1)
