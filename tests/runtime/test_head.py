"""Layers whose inputs are read in whole steps."""

import dataclasses

import numpy as np
import pytest

from recsys_kd.runtime.head import STEPS, WIDEST, Head, hidden_layers, in_steps, pairs
from recsys_kd.runtime.ranker import probabilities
from recsys_kd.tables import coded_exactly
from tests.students import Shape, student

WIDE = Shape(width=32, first=64, hidden=(32,), rank=16)


def test_inputs_are_rounded_to_steps_of_their_own_rows_largest():
    x = np.array([[1.0, 0.49, 0.0], [20.0, 10.0, 2.1], [0.0, 0.0, 0.0]], dtype=np.float32)
    assert in_steps(x, steps=2) == pytest.approx(np.array([[1.0, 0.5, 0.0], [20.0, 10.0, 0.0], [0.0] * 3]))


def test_an_input_is_off_by_half_a_step_at_most():
    x = np.abs(np.random.default_rng(0).normal(size=(50, 64))).astype(np.float32)
    assert (np.abs(in_steps(x) - x) <= 0.501 * x.max(axis=1, keepdims=True) / STEPS).all()


def test_inputs_next_to_nothing_are_nothing():
    assert in_steps(np.full((1, 3), 1e-38, dtype=np.float32)).tolist() == [[0.0, 0.0, 0.0]]


def test_codes_of_two_inputs_lie_in_one_integer():
    """Three inputs, two outputs: inputs 0 and 1 in one integer, 2 and none in the next."""
    codes = np.array([[127, -2, 0], [-1, 127, 3]], dtype=np.int8)
    coded = coded_exactly(codes.astype(np.float32) * np.float32(0.5))
    assert coded is not None and coded.codes.tolist() == codes.tolist()
    assert pairs(coded.codes.T).tolist() == [[127 - 2 * 65536, 65535 + 127 * 65536], [0, 3]]


def test_whole_sums_stay_within_32_bits():
    assert WIDEST * 127 * STEPS < 2**31


def test_weights_that_are_no_codes_are_used_as_they_are():
    assert [layer.coded is None for layer in hidden_layers(student(WIDE)[0])] == [False]
    assert [layer.coded is None for layer in hidden_layers(student(dataclasses.replace(WIDE, plain=True))[0])] == [True]


def test_fifteen_bits_cost_nothing_and_eight_move_logits_too_far():
    """Mean log loss against the exact logits' own probabilities, 2e-13 and 4e-9 more; logits move by 2e-5 and 3e-3."""
    model = student(WIDE)[0]
    sums = np.random.default_rng(0).normal(size=(20_000, 64 + 32 + 1)).astype(np.float32) * 0.5
    (layer,) = hidden_layers(model)
    exact, found = Head(model), Head(model)
    exact._layers = [dataclasses.replace(layer, coded=None)]
    want, got = exact(sums).astype(np.float64), found(sums).astype(np.float64)
    h = np.maximum(sums[:, :64] + model.arrays["hidden.0.bias"], 0.0)
    out = model.arrays["calibration"][0] * model.arrays["out.weight"]
    eight = want + (exact._layers[0](in_steps(h, steps=255)) - exact._layers[0](h)) @ out
    p = probabilities(want)

    def rise(logits):
        def loss(z):
            return np.logaddexp(0, z) - p * z

        return float(np.mean(loss(logits) - loss(want)))

    assert np.abs(got - want).max() < 5e-5 and np.abs(eight - want).max() > 5e-4
    assert abs(rise(got)) < 1e-11 and rise(eight) > 1e-9
