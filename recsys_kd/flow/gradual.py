"""Gradual pruning: rows go in several steps, with a fit after each, so that what stays can take over from what goes.

After step i of n, (1 - i / n)^3 of the rows that are to go are still there, those that save most loss, whatever chose
them: a cubic schedule. Source: Zhu and Gupta, arXiv 1710.01878.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.coding import CodedTable
from recsys_kd.compress.export import compile_student
from recsys_kd.compress.plan import CompressionPlan, TablePlan
from recsys_kd.flow.probing import Coded
from recsys_kd.index import KeyIndex
from recsys_kd.tables import CompiledStudent

Keys = Mapping[str, NDArray[np.int64]]


def pruned_gradually(
    coded: Coded,
    plan: CompressionPlan,
    keys: Keys,
    steps: int,
    fit: Callable[[CompiledStudent], CompiledStudent],
) -> CompiledStudent:
    """Return the student pruned as planned, `fit` after every step but the last: that one the caller fits."""
    tables, student = coded.tables, None
    for step in range(1, steps + 1):
        now = replace(plan, tables={t.name: _still(t, plan.tables[t.name], 1 - step / steps) for t in coded.tables})
        made = compile_student(coded.folded, tables, now, keys)
        student = made if student is None else replace(made, arrays=student.arrays)
        if step < steps:
            student = fit(student)
            tables = [_fitted(t, now.tables[t.name], keys[coded.folded.tables[t.name].keys], student) for t in tables]
    assert student is not None
    return student


def _still(table: CodedTable, plan: TablePlan, left: float) -> TablePlan:
    """Return a table's plan with those rows too that are to go later; `left`: the share of the steps that remain."""
    going = np.setdiff1d(np.arange(len(table.z) - 1), plan.keep, assume_unique=True)
    later = going[np.argsort(-table.saved(plan.code)[going], kind="stable")][: round(left**3 * len(going))]
    return replace(plan, keep=np.sort(np.concatenate([plan.keep, later])))


def _fitted(table: CodedTable, plan: TablePlan, keys: NDArray[np.int64], student: CompiledStudent) -> CodedTable:
    """Return a table with the rows of a fitted student; those that went are what they share."""
    order = KeyIndex.build(keys[plan.keep])[1]
    rows = student.tables[table.name].lookup(np.arange(len(plan.keep) + 1))
    z = table.z.copy()
    z[:, : rows.shape[1]] = rows[-1]
    z[plan.keep[order], : rows.shape[1]] = rows[:-1]
    return replace(table, z=z)
