"""Rows that go in several steps: which are there when, and what becomes of those that stay."""

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError

from recsys_kd.flow.compression import compress, prune
from recsys_kd.flow.gradual import pruned_gradually
from recsys_kd.flow.probing import code, keys_of
from recsys_kd.flow.weighing import weigh
from recsys_kd.models.compiled import float_rows
from recsys_kd.settings import CompressConfig, RecoveryConfig
from tests.served import random_student

HALF = CompressConfig(keep_rows=0.5, bits=(8,))


@pytest.fixture(scope="module")
def pruned(dataset):
    return prune(code(random_student(dataset), dataset, HALF), dataset, HALF, None)


def ids(student, name):
    index = student.indexes[name]
    return index.starts.tolist(), index.rests.tolist()


def shifted(student, by):
    """Return a student whose rows are all moved, the fallback too, as a fit would."""
    tables = {n: float_rows(t, t.lookup(np.arange(t.rows)) + np.float32(by)) for n, t in student.tables.items()}
    return dataclasses.replace(student, tables=tables, arrays={n: a * 2 for n, a in student.arrays.items()})


def test_without_a_fit_the_steps_end_where_one_step_does(dataset, pruned):
    made = pruned_gradually(pruned.coded, pruned.plan, keys_of(dataset), 4, lambda student: student)
    for name, table in pruned.student.tables.items():
        assert ids(made, name) == ids(pruned.student, name)
        rows = np.arange(table.rows)
        assert np.allclose(made.tables[name].lookup(rows), table.lookup(rows), atol=1e-5)


def test_rows_go_by_a_cubic_schedule_those_worth_most_last(dataset, pruned):
    seen = []
    pruned_gradually(pruned.coded, pruned.plan, keys_of(dataset), 4, lambda s: seen.append(s) or s)
    assert len(seen) == 3
    for table in pruned.coded.tables:
        keep = len(pruned.plan.tables[table.name].keep)
        going = len(table.z) - 1 - keep
        left = [student.tables[table.name].rows - 1 - keep for student in seen]
        assert left == [round(going * share) for share in (0.75**3, 0.5**3, 0.25**3)]
    user = next(t for t in pruned.coded.tables if t.name.startswith("user_id"))
    plan = pruned.plan.tables[user.name]
    gone = np.setdiff1d(np.arange(len(user.z) - 1), plan.keep)
    keys = keys_of(dataset)["user_id"]
    last = {int(keys[row]) for row in gone[np.argsort(-user.saved(plan.code)[gone])[: round(len(gone) / 64)]]}
    kept = {int(keys[row]) for row in plan.keep}
    there = {key for key, found in zip(keys.tolist(), found_in(seen[-1], user.name, keys), strict=True) if found}
    assert last and there == kept | last


def found_in(student, name, keys):
    return (student.indexes[name].rows(keys) < student.tables[name].rows - 1).tolist()


def test_what_a_fit_has_moved_stays_moved(dataset, pruned):
    made = pruned_gradually(pruned.coded, pruned.plan, keys_of(dataset), 3, lambda student: shifted(student, 1.0))
    for name, table in pruned.student.tables.items():
        widest, rows = pruned.plan.tables[name].code.widest, np.arange(table.rows)
        gain = made.tables[name].lookup(rows)[:, :widest] - table.lookup(rows)[:, :widest]
        assert np.allclose(gain, 2.0, atol=1e-4), name  # two fits before the last step, the shared row's too
    for name, array in pruned.student.arrays.items():
        assert np.allclose(made.arrays[name], 4 * array)


def test_steps_are_asked_for_in_the_recipe_and_the_budget_holds(dataset):
    counted = []
    config = CompressConfig(bytes=9000, recovery=RecoveryConfig(steps=3))
    made = compress(random_student(dataset), dataset, config, 0, lambda s: counted.append(s) or shifted(s, 0.01))
    assert len(counted) == 3
    rows = [sum(table.rows for table in student.tables.values()) for student in counted]
    assert rows[0] > rows[1] > rows[2] == sum(table.rows for table in made.served.tables.values())
    assert weigh(made.served, dataset, made.plan) <= 9000


def test_steps_without_a_fit_between_them_are_refused():
    with pytest.raises(ValidationError, match="steps: got 3 with `epochs: 0`"):
        RecoveryConfig(steps=3, epochs=0)
