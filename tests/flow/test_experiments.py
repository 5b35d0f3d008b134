import numpy as np
import pytest

from recsys_kd.data.synth import ShopConfig
from recsys_kd.flow.experiments import ab_test, arm_of, interleave, ramp, team_draft
from recsys_kd.flow.online import OnlineShop, UnknownPolicy


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
        shown, by_b = team_draft(a, b, np.random.default_rng(seed))
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
