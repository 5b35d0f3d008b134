"""First-layer weights in whole steps."""

import numpy as np
import pytest

from recsys_kd.runtime.grid import STEPS, WIDEST, grid, is_whole, on_grid
from tests.students import Shape, student


def test_weights_are_rounded_to_steps_of_their_own_columns_largest():
    """Columns 32767 and 65534, steps 1 and 2: 0.4 falls to 0, 3.1 rises to 4."""
    weight = np.array([[32767.0, 65534.0, 0.0], [0.4, 3.1, 0.0]], dtype=np.float32)
    found = grid(weight)
    assert found.step.tolist() == [1.0, 2.0, 0.0]
    assert found.codes.tolist() == [[32767, 32767, 0], [0, 2, 0]]
    assert found.values.tolist() == [[32767.0, 65534.0, 0.0], [0.0, 4.0, 0.0]]


def test_rounded_weights_are_found_again():
    weight = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    once = grid(weight)
    again = grid(once.values)
    assert np.array_equal(again.codes, once.codes) and again.step == pytest.approx(once.step, rel=1e-6)
    assert (np.abs(once.values - weight) <= 0.501 * once.step).all()


def test_whole_sums_stay_within_32_bits():
    assert WIDEST * 255 * STEPS < 2**31


def test_only_the_first_layers_part_of_folded_candidate_rows_is_rounded():
    model = student(Shape(candidate=True))[0]
    rounded = on_grid(model)
    changed = {n for n, a in model.arrays.items() if not np.array_equal(a, rounded.arrays[n])}
    assert changed == {"basis.item.folded", "basis.category.folded", "basis.position.folded"}
    for name in changed:
        assert np.array_equal(model.arrays[name][:, model.first :], rounded.arrays[name][:, model.first :])


def test_wide_rows_are_left_as_they_are():
    model = student(Shape(rank=WIDEST + 1))[0]
    assert not any(is_whole(model, term) for term in model.terms if term.name == "item")
    assert np.array_equal(on_grid(model).arrays["basis.item.folded"], model.arrays["basis.item.folded"])
