"""Hidden units: what losing one costs, and the student without some."""

import dataclasses

import numpy as np
import pytest

from recsys_kd.compress.export import served_arrays
from recsys_kd.compress.sensitivity import Head, logits_and_gradient
from recsys_kd.compress.units import Units, unit_costs, without_units
from recsys_kd.distil.calibration import IDENTITY
from recsys_kd.flow.calibrating import calibrated
from recsys_kd.flow.probing import code, fold, narrowed
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.settings import CompressConfig
from recsys_kd.tables import StudentWeights
from tests.served import compressed, head, random_student


def arrays(rng, first=5, hidden=(3,)):
    made, last = {"hidden.0.bias": rng.normal(size=first), "bias": rng.normal(size=1)}, first
    for i, out in enumerate(hidden, 1):
        made |= {f"hidden.{i}.weight": rng.normal(size=(out, last)), f"hidden.{i}.bias": rng.normal(size=out)}
        last = out
    return {n: a.astype(np.float32) for n, a in (made | {"out.weight": rng.normal(size=last)}).items()}


def test_a_units_cost_is_what_its_variance_moves_the_logit_by():
    # One unit: activations 0 and 2, out weight 3, no other terms: logits 0 and 6, mean activation 1.
    made = {"hidden.0.bias": [0.0], "out.weight": [3.0], "bias": [0.0]}
    made = {name: np.array(a, np.float32) for name, a in made.items()}
    (found,) = unit_costs(Head(1, made), np.float32([[-1, 0, 0], [2, 0, 0]]), np.float32([1, 1]))
    p = 1 / (1 + np.exp(-6.0))
    assert found.mean.tolist() == [1.0]
    assert found.cost[0] == pytest.approx((0.25 * 9 + p * (1 - p) * 9) / 4)


def test_small_changes_cost_what_is_predicted():
    rng = np.random.default_rng(0)
    made = arrays(rng, 6, (4,))
    made["out.weight"] *= 0.05
    sums, weight = rng.normal(size=(4000, 6 + 2 + 1)).astype(np.float32), np.ones(4000, np.float32)
    units = unit_costs(Head(6, made), sums, weight)
    before = logits_and_gradient(Head(6, made), sums)[0]
    p = 1 / (1 + np.exp(-before))
    for unit in range(4):
        keep = [u for u in range(4) if u != unit]
        cost = np.zeros(4)
        cost[keep] = 1.0
        chosen = [Units(np.ones(6), units[0].mean), Units(cost, units[1].mean)]
        weights = StudentWeights(None, 2, 6, {}, made)
        lost = without_units(weights, chosen, 0.75)[0].arrays
        # The first layer has lost two of its six as well: put those back.
        lost |= {name: made[name] for name in ("hidden.0.bias",)}
        lost["hidden.1.weight"], lost["hidden.1.bias"] = made["hidden.1.weight"][keep], made["hidden.1.bias"][keep]
        after = logits_and_gradient(Head(6, lost), sums)[0]
        rise = np.mean(np.logaddexp(0, after) - p * after - np.logaddexp(0, before) + p * before)
        assert rise == pytest.approx(units[1].cost[unit], rel=0.1)


def test_units_that_never_vary_are_lost_for_nothing():
    rng = np.random.default_rng(1)
    made = arrays(rng, 4, (3,))
    made["hidden.0.bias"] = np.float32([50, -50, 0, 0])  # always on by much, never on
    sums = rng.normal(size=(500, 4 + 1 + 1)).astype(np.float32)
    sums[:, 0] = 0.0
    units = unit_costs(Head(4, made), sums, np.ones(500, np.float32))
    assert (units[0].cost[:2] < 1e-9).all() and (units[0].cost[2:] > 0).all()
    units[1] = dataclasses.replace(units[1], cost=np.array([1.0, 1.0, 0.0]))
    weights = StudentWeights(None, 1, 4, {}, made)
    half, lost = without_units(weights, [units[0], dataclasses.replace(units[1], cost=np.ones(3))], 1.0)
    assert lost == 0 and half.first == 4
    two = [units[0], Units(np.ones(3), units[1].mean)]
    kept, _ = without_units(weights, two, 0.5)
    assert (
        kept.first == 2 and kept.arrays["hidden.1.weight"].shape == (2, 2) and kept.arrays["out.weight"].shape == (2,)
    )


@pytest.mark.parametrize("fold", ["item", "field"])
def test_a_student_with_half_of_its_units_is_served_and_nearer_than_chance(dataset, fold):
    model = random_student(dataset)
    weights, cost = narrowed(model.weights(), dataset, CompressConfig(units=0.5, fold=fold))
    assert weights.first == 4 and weights.arrays["hidden.1.weight"].shape == (2, 4) and cost > 0
    made = compressed(dataset, model, units=0.5, fold=fold)
    index, items = head(dataset)
    got = OfflineModel(calibrated(made.pruned, IDENTITY), dataset).score_rows(dataset.batch(index), items)
    want = model.score(dataset.batch(index))
    assert made.served.first == 4 and np.corrcoef(got, want)[0, 1] > 0.9


def test_before_training_a_student_weighs_what_it_will_whichever_units_it_loses(dataset):
    model, config = random_student(dataset), CompressConfig(units=0.5)
    one, two = fold(model, dataset, config), code(model, dataset, config).folded
    shapes = [{name: a.shape for name, a in served_arrays(folded).items()} for folded in (one, two)]
    assert shapes[0] == shapes[1] and one.weights.first == two.weights.first == 4
