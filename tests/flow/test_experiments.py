import json

import numpy as np
import pytest
from typer.testing import CliRunner

from recsys_kd.cli.main import app
from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.flow.experiments import ab_test, arm_of, interleave, ramp, team_draft, tosses
from recsys_kd.flow.online import OnlineShop, TooManyCandidates, UnknownPolicy


@pytest.fixture(scope="module")
def shop():
    return OnlineShop(ShopConfig(rows=5000, days=4, users=400, items=120))


@pytest.fixture(scope="module")
def requests(shop):
    return shop.requests(4000, 20, np.random.default_rng(1))


def test_the_oracle_is_best_and_its_value_is_what_clicks_average(shop, requests):
    values = {}
    for name in ("random", "popular", "oracle:1", "oracle"):
        order = shop.order(shop.policy(name), requests)
        values[name] = shop.value(requests, order).mean()
        clicks = shop.clicks(requests, order, np.random.default_rng(2)).sum(axis=1)
        assert clicks.mean() == pytest.approx(values[name], abs=4 * clicks.std() / np.sqrt(4000))
    assert values["oracle"] > values["oracle:1"] > values["random"]


def test_team_draft_by_hand_gives_each_side_its_best_in_turn():
    a, b = np.array([[1, 2, 3, 4]]), np.array([[2, 1, 5, 6]])
    seen = {}
    for seed in range(30):
        shown, by_b = team_draft(a, b, tosses(1, 4, np.random.default_rng(seed)))
        seen[tuple(shown[0])] = tuple(by_b[0])
    assert seen[1, 2, 3, 5] == (False, True, False, True)
    assert seen[2, 1, 5, 3] == (True, False, True, False)
    assert all(len(set(shown)) == 4 and sum(teams) == 2 for shown, teams in seen.items())


def test_experiments_cover_the_truth_and_interleaving_sees_more(shop):
    a, b = shop.policy("oracle:1", 1), shop.policy("oracle:0.7", 2)
    covered, signal = [], []
    for seed in range(12):
        asked = shop.requests(600, 20, np.random.default_rng(seed))
        split, mixed = ab_test(shop, a, b, asked, seed=seed), interleave(shop, a, b, asked, seed=seed)
        covered += [split.covers, mixed.covers]
        assert split.split_p > 1e-6
        signal.append([f.difference.value / (f.difference.high - f.difference.low) for f in (split, mixed)])
    assert np.mean(covered) >= 0.85
    ab, interleaved = np.mean(signal, axis=0)
    assert interleaved > 2 * ab


def test_a_ramp_stops_where_harm_is_shown_and_not_before(shop, requests):
    good, bad = shop.policy("oracle"), shop.policy("random", 3)
    harmed = ramp(shop, good, bad, requests)
    assert harmed.ended == "harm" and len(harmed.steps) < 4 and harmed.steps[-1].truth < 0
    assert ramp(shop, bad, good, requests).ended == "full"


def test_a_growing_share_keeps_the_users_it_has():
    user = np.arange(10_000)
    small, large = arm_of(user, 0.05, 7), arm_of(user, 0.25, 7)
    assert small.mean() == pytest.approx(0.05, abs=0.01) and (large | ~small).all()


def test_an_unknown_policy_lists_those_there_are(shop):
    with pytest.raises(UnknownPolicy, match="give popular, random, oracle"):
        shop.policy("clever")


def test_equal_policies_have_no_difference_in_any_experiment(shop, requests):
    same = shop.policy("oracle:1", 1)
    assert interleave(shop, same, same, requests).truth == pytest.approx(0, abs=1e-12)
    assert ab_test(shop, same, same, requests).truth == 0


@pytest.mark.parametrize("name", ["oracle:x", "oracle:-1", "oracle:nan", "oracle:inf", "oracle:"])
def test_an_oracles_noise_is_a_number_from_0_on(shop, name):
    with pytest.raises(UnknownPolicy, match=f"policy '{name}': SD of oracle:SD is a number of logits"):
        shop.policy(name)


def test_more_candidates_than_items_or_memory_are_refused_at_once(shop):
    with pytest.raises(TooManyCandidates, match="--candidates: 121 of a request, and the shop has 120 items"):
        shop.requests(10, 121, np.random.default_rng(0))
    with pytest.raises(TooManyCandidates, match="are 100,000,000 scores; at most 50,000,000 fit"):
        shop.requests(1_000_000, 100, np.random.default_rng(0))


def test_the_command_tells_share_and_truth_of_every_step_in_a_shop_of_any_size():
    given = ["simulate", "--control", "random", "--treatment", "oracle", "--requests", "2000", "--rows", "2000"]
    given += ["--days", "4", "--users", "300", "--items", "60", "--candidates", "12"]
    shown = CliRunner().invoke(app, given).stdout.splitlines()
    found = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)
    steps = [line for line in shown if line.startswith("ramp, ")]
    assert [s["share"] for s in found["ramp"]] == [0.01, 0.05, 0.25, 0.5] and len(steps) == 4
    assert steps[1].startswith("ramp,   5% of") and f", truth {found['ramp'][1]['truth']:+.5f}" in steps[1]


def test_experiments_with_too_few_users_say_so_in_words_and_in_json_that_can_be_read():
    given = ["simulate", "--control", "popular", "--treatment", "random", "--rows", "2000", "--requests", "100"]
    given += ["--candidates", "2", "--users", "10", "--items", "50"]
    shown = CliRunner().invoke(app, given).stdout
    assert "ramp ended: too few users" in shown and "nan" not in shown
    assert "too few users for an interval" in shown or "not known: too few users" in shown
    found = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout, parse_constant=pytest.fail)
    assert found["ended"] == "too few users" and found["ramp"][-1]["difference"]["low"] is None
