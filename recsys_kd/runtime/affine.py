"""Every term as one affine map and, for some, a square: what the kernel computes with.

A term reads z (a coded row's coordinates, the mean of such rows, or numbers) and adds mean + z @ matrix to (h, S, s);
where its row is an embedding e = its part of S, s loses |e|^2 / 2 as well. A view's basis and the first layer are
multiplied here, once: r x (H + d + 1) products per lookup instead of r x (d + 1) and d x H, less since r <= d.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.tables import CompiledStudent, Term

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """matrix [dim, H + d + 1], mean [H + d + 1], and whether |its part of S|^2 / 2 is taken from s."""

    matrix: Doubles
    mean: Doubles
    square: bool


def affine(student: CompiledStudent, term: Term) -> Affine:
    """Return a term's map."""
    if term.table is None:
        return _numbers(student, term)
    basis, mean = _array(student, f"basis.{term.view}"), _array(student, f"mean.{term.view}")
    if term.layout == "folded":
        return Affine(basis, mean, False)
    first = _array(student, f"first.{term.name}")
    return Affine(_unfold(basis, first), _unfold(mean[None], first)[0], True)


def _array(student: CompiledStudent, name: str) -> Doubles:
    return student.arrays[name].astype(np.float64)


def _unfold(rows: Doubles, first: Doubles) -> Doubles:
    """Return what rows (e, linear) [n, d + 1] add to (h, S, s), the square apart."""
    return np.concatenate([rows[:, :-1] @ first.T, rows], axis=1)


def _numbers(student: CompiledStudent, term: Term) -> Affine:
    first, linear = _array(student, f"first.{term.name}"), _array(student, f"linear.{term.name}")
    mean = np.zeros(student.first + student.width + 1)
    if term.kind == "vector":
        e = _array(student, f"project.{term.name}").T
        return Affine(np.concatenate([e @ first.T, e, linear[:, None]], axis=1), mean, True)
    none = np.zeros((len(linear), student.width))
    return Affine(np.concatenate([first.T, none, linear[:, None]], axis=1), mean, False)


@dataclass(frozen=True)
class Candidates:
    """All candidate terms stacked: z [K] of all of them -> h [H], sums to square [Q], s.

    matrix [K, H + Q + 1]. base [H + d + 1]: what the terms' means add. weight [Q]: what each square counts.
    constant: means of those sums that are no part of S. rotation [d, q] or None: S is read in q < d turned coordinates,
    which suffice where candidates have fewer numbers than S: |S|^2 = |S turned|^2 + what the request alone decides.
    """

    matrix: Doubles
    base: Doubles
    weight: Doubles
    constant: Doubles
    rotation: Doubles | None


def stack(terms: list[Affine], first: int, width: int) -> Candidates:
    """Return the candidate terms as one map."""
    s = slice(first, first + width)
    matrix = np.concatenate([t.matrix for t in terms])
    base = np.sum([t.mean for t in terms], axis=0)
    rotation = np.linalg.qr(matrix[:, s].T)[0] if len(matrix) < width else None
    turned = matrix[:, s] if rotation is None else matrix[:, s] @ rotation
    own, constants, at = [], [], 0
    for term in terms:
        if term.square:
            block = np.zeros((len(matrix), width))
            block[at : at + len(term.matrix)] = term.matrix[:, s]
            own.append(block)
            constants.append(term.mean[s])
        at += len(term.matrix)
    return Candidates(
        np.concatenate([matrix[:, :first], turned, *own, matrix[:, -1:]], axis=1),
        base,
        np.concatenate([np.full(turned.shape[1], 0.5), np.full(width * len(own), -0.5)]),
        np.concatenate([np.zeros(0), *constants]),
        rotation,
    )


def constants(student: CompiledStudent, candidates: Candidates) -> Doubles:
    """Return what (h, S, s) start from: the first layer's and the logit's bias, and the candidate terms' means."""
    base = candidates.base.copy()
    base[: student.first] += _array(student, "hidden.0.bias")
    base[-1] += float(student.arrays["bias"][0])
    return base


def calibration(student: CompiledStudent) -> tuple[float, float]:
    """Return slope and offset of the logit."""
    pair: Any = student.arrays.get("calibration", (1.0, 0.0))
    return float(pair[0]), float(pair[1])
