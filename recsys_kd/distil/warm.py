"""Yesterday's student as tonight's start: its numbers, moved to tonight's ids and tonight's scale of dense fields.

An id that both know keeps its row. A new one begins as the fallback row, which is what it was served with so far; one
that tonight's log holds too rarely loses its row. A dense field is standardized anew every night, (v - m) / s, so its
weights W become W s1 / s0, and W (m1 - m0) / s0 goes into the biases: the student scores a row as it did yesterday.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_kd.models.names import key
from recsys_kd.models.student import Student
from recsys_kd.schema import Field, Schema

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Past:
    """A student of another night: its schema, the sorted keys of every vocabulary, and its state."""

    schema: Schema
    keys: Mapping[str, Ints]
    state: Mapping[str, Tensor]


def rows_of(now: Ints, then: Ints) -> Ints:
    """Return the row that each of tonight's ids [n], and the fallback row after them, had before [n + 1].

    Both are sorted; an id without one had the fallback row, `len(then)`.
    """
    found = np.full(len(now) + 1, len(then), dtype=np.int64)
    at = np.searchsorted(then, now)
    known = np.flatnonzero(at < len(then))
    known = known[then[at[known]] == now[known]]
    found[known] = at[known]
    return found


def fits(past: Past, student: Student) -> bool:
    """Return whether a student takes the same inputs and has the same layers, but for the number of ids."""
    if past.schema.fingerprint != student.schema.fingerprint:
        return False
    wanted, tables = student.state_dict(), {f"tables.{key(name)}" for name in student.schema.vocabularies}
    if wanted.keys() != past.state.keys():
        return False
    return all(past.state[n].shape[n in tables :] == t.shape[n in tables :] for n, t in wanted.items())


@torch.no_grad()
def carry(past: Past, student: Student, keys: Mapping[str, Ints]) -> None:
    """Put a past student's numbers into one of tonight's; `keys`: tonight's, by vocabulary. See `fits`."""
    state = {name: tensor.clone() for name, tensor in past.state.items()}
    for name in student.schema.vocabularies:
        rows = torch.from_numpy(rows_of(keys[name], past.keys[name]))
        state[f"tables.{key(name)}"] = state[f"tables.{key(name)}"][rows]
    for field in student.schema.of(kinds=("dense",)):
        _rescale(state, past.schema.field(field.name), field)
    student.load_state_dict(state)


def _rescale(state: dict[str, Tensor], then: Field, now: Field) -> None:
    ratio, shift = now.std / then.std, (now.mean - then.mean) / then.std
    first, linear = state[f"first.{key(now.name)}"], state[f"linear.{key(now.name)}"]
    state["first_bias"] += first[:, 0] * shift
    state["serving_head.bias"] += linear * shift
    state["auxiliary_head.bias"] += state["auxiliary_scale"] * linear * shift
    first *= ratio
    linear *= ratio
