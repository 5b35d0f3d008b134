"""The toy of the original article: the whole chain on two moons loses at most a point."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from recsys_kd.cli.main import app
from recsys_kd.flow.toy import in_steps, two_moons, zeroed


def test_the_articles_steps_are_what_it_says_they_are():
    weights = np.array([-0.11, -0.09, 0.0, 0.0999, 0.1, 1.234], dtype=np.float32)
    assert zeroed(weights).tolist() == pytest.approx([-0.11, 0, 0, 0, 0.1, 1.234])
    assert in_steps(weights).tolist() == pytest.approx([-0.11, -0.09, 0.0, 0.1, 0.1, 1.23])


def test_moons_interleave():
    x, label = two_moons(20_000, np.random.default_rng(0))
    # The upper half circle has its centre of mass 2 / pi above (0, 0), the lower one as far below (1, 0.5).
    assert x[label == 0].mean(axis=0) == pytest.approx([0, 2 / np.pi], abs=0.03)
    assert x[label == 1].mean(axis=0) == pytest.approx([1, 0.5 - 2 / np.pi], abs=0.03)


def test_our_chain_loses_at_most_a_point_and_says_why_the_articles_loses_more():
    done = CliRunner().invoke(app, ["study", "toy", "--seeds", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    accuracy = {name: values[0] for name, values in found["accuracy"].items()}
    assert found["lost"] == [accuracy["teacher"] - accuracy["served"]] and found["lost"][0] <= 1
    assert accuracy["teacher"] > 95 and accuracy["article student"] < 90
    assert "its student stops too early" in found["why"] and 0 < found["removed"] < 0.5
    lost = accuracy["teacher"] - accuracy["article rounded"]
    assert f"loses 15 points (here {lost:.1f})" in found["why"]
