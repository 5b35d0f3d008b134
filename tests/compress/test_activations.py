"""Activations in whole numbers are taken where they cost nothing that counts and gain time, and nowhere else."""

import pytest

from recsys_kd.artifact.manifest import canonical
from recsys_kd.compress.activations import GAIN, LONGEST, TOLERANCE, choose

CHEAP, DEAR = {"15": 2e-13, "8": 4e-9}, {"15": 2e-6, "8": 1e-3}
FASTER, SLOWER = {"int16": 45.0, "float32": 60.0}, {"int16": 45.0, "float32": 45.5}
CASES = [
    (CHEAP, FASTER, "int16", "15 bits cost at most 1e-06 nats per row and are 1.33 times as fast"),
    (CHEAP, SLOWER, "float32", "int16 is 1.01 times as fast here, less than 1.02"),
    (DEAR, FASTER, "float32", "15 bits cost more than 1e-06 nats per row"),
    (CHEAP, {}, "int16", "15 bits cost at most 1e-06; no native kernel is here to time"),
    (DEAR, {}, "float32", "15 bits cost more than 1e-06 nats per row"),
    ({}, {}, "int16", "no hidden layer has int8 weights, so nothing is rounded"),
]


@pytest.mark.parametrize(("loss", "times", "form", "why"), CASES, ids=[why for *_, why in CASES])
def test_the_form_is_the_one_that_measurements_speak_for(loss, times, form, why):
    found = choose("auto", loss, times)
    assert (found.form, found.why, found.loss, found.p50_us) == (form, why, loss, times)


def test_a_loss_on_the_tolerance_is_within_it_and_a_gain_on_the_least_suffices():
    assert choose("auto", {"15": TOLERANCE}, {"int16": 1.0, "float32": GAIN}).form == "int16"


def test_a_gain_on_the_validation_days_is_no_loss():
    assert choose("auto", {"15": -1e-3}, FASTER).form == "int16"


@pytest.mark.parametrize("wanted", ["int16", "float32"])
def test_what_the_recipe_asks_for_is_taken_and_measured_all_the_same(wanted):
    for loss, times in ((CHEAP, FASTER), (DEAR, SLOWER)):
        found = choose(wanted, loss, times)
        assert (found.form, found.why, found.loss) == (wanted, "the recipe asks for it", loss)


def test_the_choice_is_told_in_one_line():
    assert choose("auto", CHEAP, FASTER).line() == (
        "activations: log loss beside float32: 15 bits +2.0e-13, 8 bits +4.0e-09; int16 45.0 us, float32 60.0 us; "
        "int16 is served: 15 bits cost at most 1e-06 nats per row and are 1.33 times as fast"
    )
    assert choose("auto", {}, {}).line() == (
        "activations: int16 is served: no hidden layer has int8 weights, so nothing is rounded"
    )


def test_no_choice_takes_more_room_in_a_manifest_than_is_left_for_it():
    found = choose("float32", {"15": -1.26e-13, "8": 0.1}, {"float32": 49.999, "int16": 1.0}).to_manifest()
    assert found == {"form": "float32", "loss": -1.3e-13, "gain": 50.0}
    for loss in (-1.26e-13, 0.0, -0.123456, -0.000123, 12.3456):
        for times in ({}, {"float32": 49.994, "int16": 1.0}, {"float32": 1.0, "int16": 3.0}):
            found = choose("float32", {"15": loss}, times).to_manifest()
            assert len(canonical(found)) <= len(canonical(LONGEST)), found
