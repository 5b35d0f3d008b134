import dataclasses
import json

import numpy as np
import pytest

from recsys_kd.evaluate import inspect
from recsys_kd.evaluate.ab_charts import colours_of
from recsys_kd.evaluate.ab_report import render_page
from recsys_kd.evaluate.comparison import compare
from recsys_kd.evaluate.inference import smallest_effect
from recsys_kd.evaluate.offpolicy import Logged, off_policy
from recsys_kd.evaluate.sample import Sample
from recsys_kd.evaluate.words import told_p
from recsys_kd.settings import AbConfig, EvaluateConfig, Margin

EASY = AbConfig(decide={"auc": Margin(not_worse=0.05), "logloss": Margin(not_worse=0.05)}, replicates=200)


def shop(requests=600, size=5, seed=0):
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(requests), size)
    user = np.repeat(rng.integers(0, 200, requests), size)
    logit = rng.normal(size=len(user))
    label = (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    item = np.concatenate([rng.permutation(40)[:size] for _ in range(requests)]).astype(np.int32)
    return logit, Sample(label, np.ones(len(user), np.float32), user, request, item)


def noisy(logit, spread, seed):
    return (logit + spread * np.random.default_rng(seed).normal(size=len(logit))).astype(np.float32)


def test_a_better_treatment_wins_and_a_worse_one_does_not():
    logit, sample = shop()
    scores = {"old": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2), "bad": noisy(logit, 4.0, 3)}
    found = compare(scores, "old", sample, EASY)
    assert found.outcomes == {"new": "better", "bad": "worse"}
    assert found.headline.startswith("Use new: it is better than old on this log (auc +0.")
    assert compare({k: scores[k] for k in ("old", "bad")}, "old", sample, EASY).headline.startswith(
        "Keep old: bad is wors"
    )


def test_the_same_scores_are_no_worse_and_nothing_is_claimed():
    logit, sample = shop()
    one = noisy(logit, 0.5, 1)
    found = compare({"a": one, "b": one.copy()}, "a", sample, EASY)
    assert found.outcomes == {"b": "no worse"} and found.drift == {"b": 0.0}
    assert "may replace a if it is cheaper" in found.headline
    effect = found.effect("b", "auc")
    assert (effect.delta.low, effect.delta.high, effect.bootstrap.low) == (0.0, 0.0, 0.0)


def test_intervals_may_be_clustered_by_request():
    logit, sample = shop()
    by_user, by_request = sample, dataclasses.replace(sample, by="request")
    scores = {"old": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2)}
    a, b = (compare(scores, "old", s, EASY) for s in (by_user, by_request))
    assert (a.users, a.clustered_by, b.users, b.clustered_by) == (188, "user", 188, "request")
    loss = {n: np.log1p(np.exp(z)) - z * sample.label for n, z in scores.items()}
    change = (loss["new"] - loss["old"]).reshape(600, 5).sum(axis=1) - 5 * (loss["new"] - loss["old"]).mean()
    assert b.effect("new", "logloss").error == pytest.approx(np.sqrt(600 / 599 * np.square(change).sum()) / 3000)
    assert a.effect("new", "logloss").error != pytest.approx(b.effect("new", "logloss").error, rel=1e-3)
    for metric in ("auc", "logloss", "gauc", "ndcg@10", "ece"):
        assert a.effect("new", metric).delta.value == pytest.approx(b.effect("new", metric).delta.value, abs=1e-12)
    wide, narrow = (getattr(b.effect("new", "logloss"), n) for n in ("bootstrap", "delta"))
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low, rel=0.2)


def test_a_mean_over_users_has_no_interval_clustered_by_request_and_can_not_decide():
    logit, sample = shop()
    by_request = dataclasses.replace(sample, by="request")
    scores = {"old": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2)}
    assert np.isnan(compare(scores, "old", by_request, EASY).effect("new", "gauc").delta.low)
    with pytest.raises(inspect.NoInterval, match=r"gauc can't decide: it is a mean over users.*`ab\.cluster: user`"):
        compare(scores, "old", by_request, AbConfig(decide={"gauc": Margin()}))


def test_a_log_that_is_too_small_says_so_and_how_large_it_must_be():
    logit, sample = shop()
    tight = AbConfig(decide={"auc": Margin(not_worse=0.001)}, replicates=100)
    found = compare({"a": noisy(logit, 1.0, 1), "b": noisy(logit, 1.0, 2)}, "a", sample, tight)
    assert found.outcomes == {"b": "undecided"} and found.headline.startswith("No decision")
    effect = found.effect("b", "auc")
    assert f"about {effect.clusters_needed:,} users would do" in found.warnings[0]
    error = effect.error * (found.users / effect.clusters_needed) ** 0.5
    assert smallest_effect(error, 0.95, 0.8, effect.clusters_needed) == pytest.approx(0.001, rel=1e-4)


def test_the_same_log_gives_the_same_digits_in_any_order_of_rows():
    logit, sample = shop()
    scores = {"a": noisy(logit, 1.0, 1), "b": noisy(logit, 0.9, 2)}
    once = compare(scores, "a", sample, EASY)
    assert compare(scores, "a", sample, EASY).to_json() == once.to_json()
    mixed = np.random.default_rng(0).permutation(len(logit))
    again = compare({k: v[mixed] for k, v in scores.items()}, "a", sample.where(mixed), EASY)
    for metric in ("auc", "logloss", "mrr"):
        one, other = once.effect("b", metric).bootstrap, again.effect("b", metric).bootstrap
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_slices_are_corrected_for_their_number():
    logit, sample = shop()
    scores = {"a": noisy(logit, 1.0, 1), "b": noisy(logit, 0.3, 2)}
    config = AbConfig(decide={"auc": Margin()}, replicates=100)
    one = compare(scores, "a", sample, config, slices={"all": sample.user >= 0})
    many = compare(scores, "a", sample, config, slices={f"s{i}": sample.user >= 0 for i in range(10)})
    whole = one.effect("b", "auc").delta
    assert (one.slices[0].difference.low, one.slices[0].difference.high) == pytest.approx((whole.low, whole.high))
    wide = many.slices[0].difference
    assert (wide.high - wide.low) / (whole.high - whole.low) == pytest.approx(2.807 / 1.96, rel=0.01)


def test_a_slice_that_loses_is_warned_of():
    logit, sample = shop()
    hurt = sample.user < 60
    scores = {"a": noisy(logit, 0.3, 1)}
    scores["b"] = np.where(hurt, noisy(logit, 4.0, 2), scores["a"]).astype(np.float32)
    found = compare(scores, "a", sample, EASY, slices={"new users": hurt, "others": ~hurt})
    assert any(w.startswith("b loses on new users: auc -0.") for w in found.warnings)


HOSTILE = [
    (lambda s, z: (s, {"a": z}), inspect.OneModel, "at least one treatment"),
    (lambda s, z: (s, {"a": z, "b": np.where(np.arange(len(z)) == 7, np.nan, z)}), inspect.ScoreMissing,
     "scores of 'b': 1 of 3,000 are NaN or infinite, the first in row 7"),
    (lambda s, z: (Sample(s.label, s.weight * 0, s.user, s.request), {"a": z, "b": z}), inspect.OneClass,
     "weight: of 0 rows of weight above 0"),
    (lambda s, z: (Sample(s.label, 1 - s.label, s.user, s.request), {"a": z, "b": z}), inspect.OneClass, "0 are click"),
    (lambda s, z: (Sample(s.label * 0, s.weight, s.user, s.request), {"a": z, "b": z}), inspect.OneClass,
     "all 3,000 rows are not clicked"),
    (lambda s, z: (Sample(s.label, s.weight, s.user * 0, s.request), {"a": z, "b": z}), inspect.TooFewUsers,
     r"1 user\(s\) in 3,000 rows"),
    (lambda s, z: (Sample(s.label, s.weight, np.arange(3000), s.request), {"a": z, "b": z}), inspect.MixedRequest,
     "request 0 has rows of several users"),
    (lambda s, z: (Sample(s.label, s.weight, s.user, s.request, s.item * 0), {"a": z, "b": z}),
     inspect.RepeatedCandidate, "2,400 candidates stand twice in one request, the first is item number 0 of request 0"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "words"), HOSTILE)
def test_what_can_not_be_compared_is_refused_in_plain_words(spoil, error, words):
    logit, sample = shop()
    given, scores = spoil(sample, logit.astype(np.float32))
    with pytest.raises(error, match=words) as caught:
        compare({k: v.astype(np.float32) for k, v in scores.items()}, "a", given, EASY)
    assert "{" not in str(caught.value)


def test_constant_scores_and_users_with_one_row_are_noted():
    logit, sample = shop()
    constant = np.zeros(len(logit), dtype=np.float32)
    found = compare({"a": noisy(logit, 1.0, 1), "b": constant}, "a", sample, EASY)
    assert "scores of 'b' are all the same: it ranks by chance, AUC 0.5 by definition" in found.warnings
    assert found.metrics["b"]["auc"].value == 0.5
    n = np.arange(len(logit))
    alone = Sample(sample.label, sample.weight, n, n)
    found = compare({"a": noisy(logit, 1.0, 1), "b": noisy(logit, 1.0, 2)}, "a", alone, EASY)
    assert found.warnings[0].startswith("every user has one row") and np.isnan(found.metrics["a"]["gauc"].value)


def test_an_unknown_metric_is_named_with_those_there_are():
    logit, sample = shop()
    config = AbConfig(decide={"ndcg@7": Margin()})
    with pytest.raises(inspect.UnknownMetric, match=r"no metric 'ndcg@7'; measured are auc, coverage@10"):
        compare({"a": noisy(logit, 1, 1), "b": noisy(logit, 1, 2)}, "a", sample, config, EvaluateConfig())


@pytest.mark.parametrize("metric", ["popularity@3", "coverage@3"])
def test_a_metric_that_is_neither_better_nor_worse_can_not_decide(metric):
    logit, sample = shop()
    scores, config = {"a": noisy(logit, 1, 1), "b": noisy(logit, 1, 2)}, AbConfig(decide={metric: Margin()})
    with pytest.raises(inspect.UndirectedMetric, match=f"{metric} can't decide: it tells what is shown"):
        compare(scores, "a", sample, config, EvaluateConfig(k=(3,)))


def test_holms_p_asks_for_as_much_as_better_by():
    logit, sample = shop()
    scores = {"old": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2)}

    def effect(better_by, metric="auc"):
        config = AbConfig(decide={metric: Margin(not_worse=0.05, better_by=better_by)}, replicates=100)
        return compare(scores, "old", sample, config).effect("new", metric)

    plain = effect(0.0)
    assert plain.adjusted_p == plain.p and plain.outcome == "better"
    # At the interval's own lower end p is 0.05, and beyond the change itself there is nothing to be shown.
    assert effect(plain.delta.low).adjusted_p == pytest.approx(0.05)
    assert effect(plain.delta.low * 0.9).outcome == "better" and effect(plain.delta.low * 1.1).outcome == "no worse"
    assert effect(plain.delta.value * 1.01).adjusted_p == 1.0
    # Logloss is better where it falls.
    assert effect(-effect(0.0, "logloss").delta.high, "logloss").adjusted_p == pytest.approx(0.05)


def test_the_page_is_self_contained_escaped_and_says_what_the_json_says():
    logit, sample = shop()
    scores = {"a<b>": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2)}
    found = compare(scores, "a<b>", sample, EASY, slices={"day <1>": sample.user >= 0})
    ones = np.ones(len(logit))
    policy = off_policy(Logged(sample.label.astype(float), ones * 0.5, ones * 0.25, sample.user))
    page = render_page(found, {"log": "d" * 64}, "2026-01-01", {"new": policy}, "recsys-kd ab --log '<l>'")
    assert "a&lt;b&gt;" in page and "a<b>" not in page and "day &lt;1&gt;" in page and "<script" not in page
    assert "<pre>recsys-kd ab --log &#39;&lt;l&gt;&#39;</pre>" in page
    for words in ("What decides", "allowed loss", "chance to find it", "predicted probability", "log10 of the weight"):
        assert words in page
    assert page.count("<svg") == page.count("</svg>") == 6  # two metrics decide on slices
    told = json.loads(json.dumps(found.to_json()))
    assert f"{told['effects'][0]['delta']['value']:+.5f}" in page and "nan" not in page.lower().replace("finance", "")


def test_a_sure_gain_below_what_was_asked_for_is_called_better_and_not_shown_to_be_by_as_much():
    logit, sample = shop()
    scores = {"old": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2)}
    config = AbConfig(decide={"auc": Margin(not_worse=0.05, better_by=0.5)}, replicates=100)
    found = compare(scores, "old", sample, config)
    gain = found.effect("new", "auc").delta
    assert found.outcomes == {"new": "no worse"} and gain.low > 0
    told = f"new may replace old: it is better on auc {gain.value:+.4g} ({gain.low:+.3g} to {gain.high:+.3g}), but not "
    assert found.headline == f"{told}shown to be by the 0.5 asked for, and no worse by more than 0.05 auc."


def test_what_is_better_about_a_treatment_that_is_worse_is_told_too():
    logit, sample = shop()
    biased = (2.0 + noisy(logit, 0.2, 2)).astype(np.float32)
    found = compare({"old": noisy(logit, 1.0, 1), "biased": biased}, "old", sample, EASY)
    assert found.headline.startswith("Keep old: biased is worse on logloss +")
    assert ", though better on auc +0." in found.headline


def test_every_undecided_treatment_is_named():
    logit, sample = shop()
    config = AbConfig(decide={"auc": Margin(not_worse=0.001)}, replicates=100)
    scores = {"old": noisy(logit, 1.0, 1), "one": noisy(logit, 1.0, 2), "two": noisy(logit, 1.0, 3)}
    found = compare(scores, "old", sample, config)
    assert set(found.outcomes.values()) == {"undecided"}
    assert found.headline.startswith("No decision: one and two may be worse than old by more than allowed, ")
    assert "(one: auc " in found.headline and "; two: auc " in found.headline


def test_a_treatment_that_is_better_on_the_log_and_worse_off_policy_is_not_recommended():
    logit, sample = shop()
    scores = {"old": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2)}
    found = compare(scores, "old", sample, EASY, doubts={"new": "off-policy its policy is worth 31% less"})
    assert found.outcomes == {"new": "better"} and found.doubts["new"].startswith("off-policy")
    assert found.headline.startswith("Don't switch to new yet: it is better on auc +0.")
    assert found.headline.endswith("but off-policy its policy is worth 31% less; settle it with an online test.")
    page = render_page(found, {"log": "d" * 64}, "2026-01-01")
    assert "<h2>In doubt</h2>" in page and "A winner" not in page
    scores["other"] = noisy(logit, 0.3, 3)
    assert compare(scores, "old", sample, EASY, doubts={"new": "off-policy"}).headline.startswith("Use other: ")


def test_metrics_of_lists_with_one_candidate_each_say_nothing_and_do_not_decide():
    logit, sample = shop()
    alone = Sample(sample.label, sample.weight, sample.user, np.arange(3000), sample.item)
    scores = {"old": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2)}
    found = compare(scores, "old", alone, AbConfig(replicates=100))
    assert {"mrr", "ndcg@10", "hit_rate@10"} <= set(found.uninformative)
    told = "ndcg@10 does not decide: in no request do candidates have different labels, so any order is as good"
    assert told in found.warnings and "ndcg" not in found.headline
    with pytest.raises(inspect.IdleMetric, match="ndcg@10 can't decide: in no request do"):
        compare(scores, "old", alone, AbConfig(decide={"ndcg@10": Margin()}))


def test_how_labels_between_0_and_1_are_counted_is_told():
    logit, sample = shop()
    scores = {"old": noisy(logit, 1.0, 1), "new": noisy(logit, 0.2, 2)}
    soft = Sample(np.where(sample.label > 0, 1, 0.25).astype(np.float32), sample.weight, sample.user, sample.request)
    told = [w for w in compare(scores, "old", soft, EASY).warnings if w.startswith("labels: ")]
    assert len(told) == 1 and "above 0.5 as clicked and the others as not; NDCG takes them as gains" in told[0]
    half = Sample(sample.label / 2, sample.weight, sample.user, sample.request)
    with pytest.raises(inspect.OneClass, match=r"not clicked \(labels run from 0 to 0.5, and those above 0.5 count as"):
        compare(scores, "old", half, EASY)


def test_slices_that_lose_take_one_line_for_every_treatment():
    logit, sample = shop()
    scores = {"a": noisy(logit, 0.3, 1), "b": noisy(logit, 4.0, 2), "c": noisy(logit, 4.0, 3)}
    parts = {f"s{i}": sample.user % 6 == i for i in range(6)}
    lines = [w for w in compare(scores, "a", sample, EASY, slices=parts).warnings if " loses on s" in w]
    assert [line[0] for line in lines] == ["b", "c"] and all(line.endswith(" and 2 others") for line in lines)


def test_a_p_value_of_next_to_nothing_is_told_as_less_than_a_millionth():
    assert (told_p(0.0), told_p(2e-309), told_p(0.0312), told_p(float("nan"))) == ("<1e-06", "<1e-06", "0.031", "-")


def test_a_page_of_five_treatments_gives_each_its_colour_and_unfolds_what_is_not_told_on_top():
    logit, sample = shop()
    scores = {"old": noisy(logit, 1.0, 0), **{f"t{i}": noisy(logit, 1.0, i) for i in range(1, 6)}}
    config = AbConfig(decide={"auc": Margin(not_worse=0.001), "logloss": Margin(not_worse=0.001)}, replicates=100)
    found = compare(scores, "old", sample, config)
    page = render_page(found, {"log": "d" * 64}, "2026-01-01")
    assert len(set(colours_of(tuple(scores)).values())) == 6
    assert all(f"--c{i}: #" in page for i in range(1, 9))
    assert f"<summary>{len(found.warnings) - 6} more to know</summary>" in page
