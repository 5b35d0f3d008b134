import numpy as np
import pytest

from recsys_kd.evaluate.offpolicy import (
    BadPropensity,
    Logged,
    NoPropensity,
    doubt_of,
    estimates,
    off_policy,
    overlap_of,
)
from recsys_kd.evaluate.offpolicy_model import fit_rewards
from recsys_kd.evaluate.offpolicy_table import policy_table, unseen_note
from recsys_kd.evaluate.positions import UnseenPosition, corrected_gain, examination_of
from recsys_kd.evaluate.slates import slate_value, slate_weights


def f(*values):
    return np.array(values, dtype=np.float64)


# Weights 2, 0.5, 1, 4: target over propensity.
HAND = Logged(
    reward=f(1, 0, 0, 1),
    propensity=f(0.25, 0.5, 0.5, 0.125),
    target=f(0.5, 0.25, 0.5, 0.5),
    cluster=np.arange(4),
    expected_logged=f(0.5, 0.25, 0.25, 0.5),
    expected_target=f(0.3, 0.4, 0.5, 0.2),
)


def test_every_estimator_by_hand():
    found = estimates(HAND, clip=3.0, switch=3.0)
    assert found["IPS"].value == pytest.approx((2 + 4) / 4)
    assert found["clipped IPS"].value == pytest.approx((2 + 3) / 4)
    assert found["SNIPS"].value == pytest.approx(6 / 7.5)
    assert found["DM"].value == pytest.approx(1.4 / 4)
    corrections = 2 * 0.5, 0.5 * -0.25, 1 * -0.25, 4 * 0.5
    assert found["DR"].value == pytest.approx((1.4 + sum(corrections)) / 4)
    assert found["switch-DR"].value == pytest.approx((1.4 + sum(corrections[:3])) / 4)


def test_errors_by_hand_are_those_of_a_mean_and_of_a_ratio():
    found = estimates(HAND)
    assert found["IPS"].standard_error == pytest.approx(np.std([2, 0, 0, 4], ddof=1) / 2)
    residuals = np.array([2 * 0.2, -0.5 * 0.8, -1 * 0.8, 4 * 0.2])
    assert found["SNIPS"].standard_error == pytest.approx(np.sqrt(4 / 3 * (residuals**2).sum()) / 7.5)


def test_overlap_by_hand():
    found = overlap_of(f(2, 0.5, 1, 4, 0))
    assert found.effective == pytest.approx(7.5**2 / (4 + 0.25 + 1 + 16))
    assert (found.largest, found.mean, found.unsupported) == (4.0, 1.5, 0.2)


def test_a_log_without_propensities_is_refused():
    with pytest.raises(NoPropensity, match="no propensity column"):
        off_policy(Logged(HAND.reward, None, HAND.target, HAND.cluster))


@pytest.mark.parametrize(("bad", "told"), [(0.0, "0"), (1e-9, "1e-09"), (-0.1, "-0.1"), (1.5, "1.5"), (np.nan, "nan")])
def test_impossible_propensities_are_refused_with_their_row_and_what_the_others_count_as(bad, told):
    broken = Logged(HAND.reward, f(0.25, bad, 0.5, 0.125), HAND.target, HAND.cluster)
    # The other three weigh 2, 1 and 4: 49 / 21 rows.
    words = rf"1 of 4 rows are not in 1e-08\.\.1, the first is {told} in row 1, the smallest {told};.* count as 2, "
    with pytest.raises(BadPropensity, match=words):
        off_policy(broken)


def test_the_smallest_propensity_that_is_allowed_is_the_same_in_logs_and_here():
    smallest = np.array([1e-8], dtype=np.float32).astype(np.float64)
    off_policy(Logged(f(1.0), smallest, f(1.0), np.zeros(1, dtype=np.int64)))


def test_a_target_that_is_no_probability_is_refused():
    with pytest.raises(BadPropensity, match="target: 2 in row 0"):
        off_policy(Logged(HAND.reward, HAND.propensity, f(2, 0, 0, 0), HAND.cluster))


def test_the_same_policy_earns_what_the_log_earned():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, 500)
    found = off_policy(Logged((rng.random(500) < 0.3).astype(float), p, p, np.arange(500) // 5))
    assert found.estimates["IPS"].value == found.logged.value
    assert found.lift["SNIPS"].low == pytest.approx(0) and found.overlap.effective == pytest.approx(500)
    assert found.warnings == ()


def test_thin_overlap_is_warned_of():
    target = np.zeros(1000)
    target[:3] = 1.0
    found = off_policy(Logged(np.ones(1000), np.full(1000, 0.003), target, np.arange(1000)))
    assert "1,000 rows count as 3, the largest weight is 333" in found.warnings[0]


def test_a_reward_model_never_predicts_what_it_learned_from():
    # One row per cluster, one cell, one action, prior 0 but for the fold's own: the others' mean.
    reward = f(1, 0, 0, 0, 0)
    zeros = np.zeros(5, dtype=np.int64)
    found = fit_rewards(reward, zeros, zeros, np.arange(5), np.ones((1, 1)), folds=5, prior=1e-12)
    assert found.logged.tolist() == pytest.approx([0, 0.25, 0.25, 0.25, 0.25])
    assert found.target.tolist() == pytest.approx(found.logged.tolist())


def simulated(rng, rows=2000, actions=5, cells=3):
    """Return a log of a softmax policy with a known reward, another policy, and that one's true value."""
    truth = rng.uniform(0.05, 0.5, (cells, actions))
    logging = rng.dirichlet(np.full(actions, 3.0), cells) * 0.8 + 0.2 / actions
    target = rng.dirichlet(np.full(actions, 3.0), cells) * 0.8 + 0.2 / actions
    user = np.sort(rng.integers(0, rows // 4, rows))
    user = np.unique(user, return_inverse=True)[1]
    cell = rng.integers(0, cells, rows)
    action = (rng.random(rows)[:, None] > np.cumsum(logging[cell], axis=1)).sum(axis=1).clip(max=actions - 1)
    # Users differ, so rows of one user are not independent: intervals must be clustered.
    taste = rng.normal(0, 0.03, user.max() + 1)[user]
    reward = (rng.random(rows) < truth[cell, action] + taste).astype(float)
    fitted = fit_rewards(reward, cell, action, user, target)
    log = Logged(reward, logging[cell, action], target[cell, action], user, fitted.logged, fitted.target)
    return log, float((target * truth).sum(axis=1).mean())


def test_intervals_cover_the_truth_about_95_times_in_100():
    rng, hits, runs = np.random.default_rng(3), {}, 300
    for _ in range(runs):
        log, truth = simulated(rng)
        for name, found in off_policy(log).estimates.items():
            hits[name] = hits.get(name, 0) + (found.low <= truth <= found.high)
    for name in ("IPS", "clipped IPS", "SNIPS", "DM", "DR", "switch-DR"):
        assert 0.92 < hits[name] / runs < 0.98, (name, hits)


def test_intervals_allow_for_the_few_rows_that_weigh_most():
    rng, runs, hits, symmetric = np.random.default_rng(2), 300, 0, 0
    for _ in range(runs):
        chances = np.maximum(rng.dirichlet(np.full(34, 0.1)), 1e-3)
        chances, rate = chances / chances.sum(), rng.beta(1, 20, 34)
        shown = rng.choice(34, size=10_000, p=chances)
        reward = (rng.random(10_000) < rate[shown]).astype(float)
        found = off_policy(Logged(reward, chances[shown], np.full(10_000, 1 / 34), np.arange(10_000)))
        value, truth = found.estimates["IPS"], rate.mean()
        assert found.overlap.effective < 1_000
        hits += value.low <= truth <= value.high
        error = np.std(reward / chances[shown] / 34) / 100
        symmetric += abs(value.value - truth) <= 1.96 * error
    assert 0.93 < hits / runs < 0.985 and hits - symmetric > 0.02 * runs, (hits, symmetric)


def test_slate_weights_by_hand():
    found = slate_weights(np.array([[2.0, 0.5, 3.0]]))
    assert found["positions"].tolist() == [[2.0, 0.5, 3.0]]
    assert found["cascade"].tolist() == [[2.0, 1.0, 3.0]]
    assert found["whole list"].tolist() == [[3.0, 3.0, 3.0]]


def test_slate_values_by_hand():
    reward, propensity = np.array([[1.0, 1.0], [0.0, 1.0]]), np.full((2, 2), 0.5)
    target = np.array([[1.0, 0.5], [0.5, 0.25]])
    found = slate_value(reward, propensity, target, np.arange(2)).estimates
    # Ratios: [2, 1] and [1, 0.5].
    assert found["IPS, positions"].value == pytest.approx((2 + 1 + 0.5) / 2)
    assert found["IPS, cascade"].value == pytest.approx((2 + 2 + 0.5) / 2)
    assert found["IPS, whole list"].value == pytest.approx((2 + 2 + 0.5) / 2)
    assert found["SNIPS, positions"].value == pytest.approx(2 / 3 + 1.5 / 1.5)


def test_little_overlap_is_told_of_every_slot_that_has_it():
    # Weights average 1: every second list weighs 2 at the second slot, the first forty weigh 25 at the third.
    lists, ones = np.arange(1000), np.ones((1000, 3))
    target = np.stack([ones[:, 0] / 2, np.where(lists % 2 == 0, 0.5, 0.0), np.where(lists < 40, 1.0, 0.0)], axis=1)
    propensity = np.stack([ones[:, 0] / 2, ones[:, 0] / 4, np.where(lists < 40, 0.04, 0.9)], axis=1)
    assert [w.split(";")[0] for w in slate_value(ones, propensity, target, lists).warnings] == [
        "positions: little overlap at slot 3 of 3: 1,000 lists count as 40 there, the largest weight is 25",
        "cascade: little overlap at slot 3 of 3: 1,000 lists count as 20 there, the largest weight is 50",
    ]
    # Sixty lists alone weigh anything at the first slot, and so at every one of the cascade.
    target[:, 0], propensity[:, 0] = np.where(lists < 60, 1.0, 0.0), np.where(lists < 60, 0.06, 0.5)
    found = slate_value(ones, propensity, target, lists).warnings
    assert found[0].startswith("positions: little overlap at slots 1, 3 of 3: 1,000 lists count as 60, 40 there")
    assert found[1].startswith("cascade: little overlap at slots 1, 2, 3 of 3: 1,000 lists count as 60, 30, 20 there")
    assert found[2].startswith("cascade: weights at slot 3 of 3 average 16.667, not 1") and len(found) == 3


def slates(rng, lists=1500, slots=3, actions=4):
    """Return values of lists whose clicks depend on their own item and slot alone, and the true value."""
    click = rng.uniform(0.1, 0.5, (slots, actions))
    logging, target = (rng.dirichlet(np.full(actions, 3.0), slots) * 0.7 + 0.3 / actions for _ in range(2))
    user = np.unique(rng.integers(0, lists // 3, lists), return_inverse=True)[1]
    item = np.stack([rng.choice(actions, lists, p=logging[k]) for k in range(slots)], axis=1)
    taste, slot = rng.normal(0, 0.03, user.max() + 1)[user][:, None], np.arange(slots)
    reward = (rng.random((lists, slots)) < click[slot, item] + taste).astype(float)
    return slate_value(reward, logging[slot, item], target[slot, item], user), float((target * click).sum())


def test_intervals_of_lists_cover_the_truth_about_95_times_in_100():
    rng, hits, runs = np.random.default_rng(9), {}, 300
    for _ in range(runs):
        found, truth = slates(rng)
        for name, value in found.estimates.items():
            hits[name] = hits.get(name, 0) + (value.low <= truth <= value.high)
    assert len(hits) == 6 and all(0.92 < n / runs < 0.98 for n in hits.values()), hits


def test_how_far_each_place_is_looked_at_is_found_though_better_items_stand_higher():
    rng = np.random.default_rng(5)
    look, attraction = 1 / (1 + 0.5 * np.arange(4)), rng.uniform(0.1, 0.9, 20)
    order = np.argsort(-(attraction + rng.normal(0, 0.5, (30_000, 20))), axis=1)[:, :4]
    position = np.tile(np.arange(4), 30_000)
    item = order.ravel()
    click = rng.random(len(item)) < look[position] * attraction[item]
    assert examination_of(position, item, click) == pytest.approx(look, abs=0.02)
    naive = np.bincount(position, weights=click) / np.bincount(position)
    assert abs(naive[3] / naive[0] - look[3]) > 0.05
    gain, found = corrected_gain(position, item, click.astype(np.float32))
    assert gain[click].min() == pytest.approx(1.0) and gain.max() == pytest.approx(1 / found[3], rel=1e-6)


def test_a_position_without_clicks_is_named():
    with pytest.raises(UnseenPosition, match="no click at position 1 in 2 rows"):
        examination_of(np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0]), np.array([True, False, True, False]))


def test_a_policys_table_is_read_from_its_chances_of_what_was_shown():
    place, item = np.array([0, 0, 1, 0]), np.array([0, 1, 1, 0])
    table, why = policy_table(f(0.5, 0.3, 0.25, 0.5), place, item)
    # Place 0 has a fifth left for items never shown there; place 1 three quarters.
    assert why == "" and table == pytest.approx(np.array([[0.5, 0.3, 0.2], [0.0, 0.25, 0.75]]))
    none, why = policy_table(f(0.5, 0.3, 0.25, 0.4), place, item)
    assert none is None and "varies from row to row (1 times, the first from 0.4 to 0.5)" in why
    none, why = policy_table(f(0.9, 0.3, 0.25, 0.9), place, item)
    assert none is None and "add up to 1.2: no distribution" in why


def test_where_few_rows_carry_the_weights_a_warning_says_what_to_read():
    target = np.full(2000, 0.02)
    propensity = np.where(np.arange(2000) % 20 == 0, 0.001, 0.4)
    found = off_policy(Logged(np.ones(2000), propensity, target, np.arange(2000)))
    assert "2,000 count as 110, the largest weight is 20;" in found.warnings[0] and "switch-DR" in found.warnings[0]


def test_estimates_by_a_reward_model_are_marked_too_where_weights_do_not_average_1():
    wrong = Logged(HAND.reward, np.ones(4), np.full(4, 0.1), HAND.cluster, HAND.expected_logged, HAND.expected_target)
    assert set(off_policy(wrong).off) == {"IPS", "clipped IPS", "DM", "DR", "switch-DR"}


def test_chance_that_goes_to_items_never_shown_is_told():
    place = np.array([0, 0, 1, 1])
    table, _ = policy_table(f(0.5, 0.28, 0.5, 0.28), place, np.array([0, 1, 0, 1]))
    assert "add up to 0.78 on average; the other 0.22 goes to items never shown" in unseen_note(table, place)
    whole, _ = policy_table(f(0.5, 0.5, 0.5, 0.5), place, np.array([0, 1, 0, 1]))
    assert unseen_note(whole, place) == ""


def test_a_policy_whose_every_value_lies_below_the_logs_is_doubted():
    reward = np.tile([1.0, 0.0, 0.0, 1.0], 100)
    worse = Logged(reward, np.full(400, 0.5), np.where(reward == 1, 0.2, 0.8), np.arange(400))
    assert doubt_of(off_policy(worse)).startswith("off-policy its policy is worth 60% less than the log's (SNIPS 0.2 ")
    # Weights that all lack the same factor: what is self-normalized says the same, and nothing else is listened to.
    wrong = off_policy(Logged(reward, np.full(400, 1.0), worse.target, np.arange(400)))
    assert set(wrong.off) == {"IPS", "clipped IPS"} and "(SNIPS 0.2 " in doubt_of(wrong)
    less = off_policy(Logged(reward, np.full(400, 0.5), np.where(reward == 1, 0.1, 0.1), np.arange(400)))
    assert less.lift["IPS"].high < 0 and doubt_of(less) == ""
    same = Logged(reward, np.full(400, 0.5), np.full(400, 0.5), np.arange(400))
    assert doubt_of(off_policy(same)) == ""
