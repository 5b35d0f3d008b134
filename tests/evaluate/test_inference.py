import numpy as np
import pytest

from recsys_kd.evaluate.inference import (
    BadShares,
    clusters_needed,
    critical,
    holm,
    p_value,
    power_at,
    sample_ratio,
    skewed_ends,
    smallest_effect,
)
from recsys_kd.evaluate.metrics import auc, gauc, logloss
from recsys_kd.evaluate.sample import Sample
from recsys_kd.evaluate.sums import standard_error


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert np.isnan(holm([0.01, np.nan])[1]) and holm([0.01, np.nan])[0] == 0.01


def test_p_values_by_hand():
    assert p_value(1.959964, 1.0, 10**9) == pytest.approx(0.05, abs=1e-6)
    assert p_value(-2.776445, 1.0, 5) == pytest.approx(0.05, abs=1e-6)
    assert critical(0.95, 5) == pytest.approx(2.776445, abs=1e-6)
    assert p_value(0.0, 0.0, 9) == 1.0 and p_value(1.0, 0.0, 9) == 0.0


def test_skewed_ends_by_hand():
    # 8 x 1 and 2 x -4: mean square 4, mean cube -12, so skewness -1.5 / sqrt(10), k = -0.474342.
    influence = np.array([1.0] * 8 + [-4.0] * 2)
    k = -1.5 / 10**0.5
    below, above = skewed_ends(influence, 2.0)
    assert below == pytest.approx(3 / k * ((1 + k * (2 - k / 6)) ** (1 / 3) - 1)) == pytest.approx(4.807, abs=1e-3)
    assert above == pytest.approx(-3 / k * ((1 + k * (-2 - k / 6)) ** (1 / 3) - 1)) == pytest.approx(1.524, abs=1e-3)
    assert skewed_ends(-influence, 2.0) == (above, below)
    assert skewed_ends(np.array([1.0, -1.0]), 2.0) == skewed_ends(np.zeros(3), 2.0) == (2.0, 2.0)


def test_power_and_smallest_effect_by_hand():
    # z 1.96 + 0.8416 = 2.8016 errors are found four times in five.
    assert smallest_effect(1.0, 0.95, 0.8, 10**6) == pytest.approx(2.8016, abs=1e-4)
    assert power_at(2.8016, 1.0, 0.95, 10**6) == pytest.approx(0.8, abs=1e-4)
    assert power_at(0.0, 1.0, 0.95, 10**6) == pytest.approx(0.05)
    assert clusters_needed(10**6, 1.4008, 1.0, 0.95, 0.8) == pytest.approx(4 * 10**6, rel=1e-4)


@pytest.mark.parametrize(("users", "found"), [(2, 0.805), (10, 0.8), (40, 0.8)])
def test_what_few_users_can_show_is_what_their_t_test_finds_in_simulation(users, found):
    effect = smallest_effect(1.0, 0.95, 0.8, users)
    draws = np.random.default_rng(4).normal(effect * users**-0.5, 1.0, (40_000, users)) * users**0.5
    error = draws.std(axis=1, ddof=1) / users**0.5
    hits = np.abs(draws.mean(axis=1)) > critical(0.95, users) * error
    assert hits.mean() == pytest.approx(found, abs=0.01)
    assert power_at(effect, 1.0, 0.95, users) == pytest.approx(0.8, abs=1e-3)


def test_the_users_that_are_needed_find_the_margin():
    needed = clusters_needed(10, 0.5, 0.2, 0.95, 0.8)
    at = [smallest_effect(0.2 * (10 / n) ** 0.5, 0.95, 0.8, n) for n in (needed - 1, needed)]
    assert at[1] <= 0.5 < at[0]


def test_sample_ratio_by_hand():
    # 5,300 and 4,700 of an even split: chi-square 36.
    assert sample_ratio({"a": 5300, "b": 4700}, {"a": 1, "b": 1}) == pytest.approx(1.97e-9, rel=0.01)
    assert sample_ratio({"a": 900, "b": 100}, {"a": 9, "b": 1}) == 1.0


@pytest.mark.parametrize(
    ("shares", "words"), [({"a": 1.0}, "one share for every group"), ({"a": 0, "b": 1}, "shares are above 0")]
)
def test_shares_that_make_no_sense_are_refused(shares, words):
    with pytest.raises(BadShares, match=words):
        sample_ratio({"a": 1, "b": 1}, shares)


def pairs(rng, users, rows, effect):
    """Return two models' scores on one log: both see the truth through noise, the second `effect` less of it."""
    user = np.repeat(np.arange(users), rows)
    truth = np.repeat(rng.normal(size=users), rows) * 0.7 + rng.normal(size=users * rows)
    label = (rng.random(len(user)) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    noise = rng.normal(size=(2, len(user)))
    scores = [(truth * (1 + effect * i) + n).astype(np.float32) for i, n in enumerate(noise)]
    return scores, Sample(label, np.ones(len(user), np.float32), user, user)


def compared(scores, sample, metrics):
    out = []
    for metric in metrics:
        a, b = (metric(z, sample) for z in scores)
        error = standard_error(b.influence - a.influence)
        out.append((b.value - a.value, error, p_value(b.value - a.value, error, sample.clusters)))
    return out


def test_a_pair_without_a_difference_is_called_different_one_time_in_twenty_and_holm_holds_the_family():
    rng, single, family, runs = np.random.default_rng(11), 0, 0, 1000
    for _ in range(runs):
        p = [found[2] for found in compared(*pairs(rng, 250, 5, 0.0), (auc, logloss, gauc))]
        single += p[0] < 0.05
        family += min(holm(p)) < 0.05
    assert 0.04 <= single / runs <= 0.06
    assert family / runs <= 0.06


def test_the_power_curve_is_what_simulation_finds():
    rng, effect, runs = np.random.default_rng(12), 0.35, 500
    found = [compared(*pairs(rng, 250, 5, effect), (auc,))[0] for _ in range(runs)]
    power = np.mean([p < 0.05 for *_, p in found])
    told = power_at(np.mean([v for v, *_ in found]), np.mean([e for _, e, _ in found]), 0.95, 250)
    assert 0.3 < power < 0.9 and told == pytest.approx(power, abs=0.03)
