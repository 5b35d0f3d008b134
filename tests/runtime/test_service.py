"""Which version answers, what a challenger is shown, and what is counted."""

import threading
import time

import numpy as np
import pytest

from recsys_kd.runtime.ranker import BadRequest, Ranker
from recsys_kd.runtime.service import Service, VersionNotLoaded, position
from recsys_kd.runtime.shadow import Shadow, overlap
from recsys_kd.runtime.telemetry import SHARES, Histogram
from recsys_kd.runtime.watcher import Watcher
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST, World


@pytest.fixture
def world(tmp_path):
    """Return a world whose champion is version 2, previous 1 and challenger 3."""
    made = World(tmp_path)
    made.paths = {1: made.publish(1), 2: made.publish(2)}
    made.paths[3] = made.artifact(3)
    made.register(made.paths[3])
    made.registry.name("shop", "challenger", 3, "ann", "try")
    return made


@pytest.fixture
def serve(world):
    """Start services that are stopped at the end."""
    started = []

    def start(canary=0.0, shadow=None):
        watcher = Watcher("shop", world.registry, world.pointers, seconds=3600.0, challenger=bool(canary or shadow))
        started.append(Service(watcher, canary, shadow))
        started[-1].start()
        return started[-1]

    yield start
    for service in started:
        service.stop()


def score(service, user=3, **options):
    return service.score(REQUEST | {"user_id": user}, CANDIDATES, FEATURES, **options)


def expected(world, version, user=3):
    return Ranker.open(world.paths[version]).score(REQUEST | {"user_id": user}, CANDIDATES, FEATURES)


def test_the_champion_answers_and_says_which_version_it_is(world, serve):
    answer = score(serve())
    assert (answer.version, answer.digest) == (2, world.paths[2].name)
    assert np.array_equal(answer.scores, expected(world, 2))


def test_a_request_may_ask_for_a_version_that_is_in_memory(world, serve):
    service = serve(canary=1e-9)
    for version in (1, 2, 3):
        assert np.array_equal(score(service, version=version).scores, expected(world, version))
    with pytest.raises(VersionNotLoaded, match="'shop': version 9 is not loaded; loaded are 2, 1, 3, and"):
        score(service, version=9)


def test_a_users_place_is_the_same_everywhere_and_worked_out_by_hand():
    # printf 'shop\0007' | b2sum -l 64: a2216eec2a51631d
    assert position("shop", 7) == position("shop", np.int64(7)) == pytest.approx(0xA2216EEC2A51631D / 2**64)
    assert position("other", 7) != position("shop", 7)
    places = np.array([position("shop", user) for user in range(4000)])
    assert np.abs(np.histogram(places, 10, (0, 1))[0] - 400).max() < 90  # 4.7 standard deviations


def test_a_canary_takes_its_share_of_users_and_always_the_same_ones(world, serve):
    quarter, half = serve(canary=0.25), serve(canary=0.5)
    users = range(400)
    first = [score(quarter, user).version for user in users]
    assert first == [score(quarter, user).version for user in users]
    assert first.count(3) == sum(position("shop", user) < 0.25 for user in users) and 60 < first.count(3) < 140
    more = [score(half, user).version for user in users]
    assert all(later == 3 for early, later in zip(first, more, strict=True) if early == 3)
    assert score(quarter, user=None).version == 2


def test_a_request_that_the_canary_can_not_take_is_the_champions(world, serve, monkeypatch):
    service = serve(canary=1.0)
    challenger = service.watcher.serving.challenger

    def refuse(*arguments, **options):
        raise BadRequest("another schema")

    monkeypatch.setattr(challenger.ranker, "score", refuse)
    assert np.array_equal(score(service).scores, expected(world, 2)) and service.stats.canary_failed == 1


def test_a_bad_request_is_refused_and_counted_and_changes_nothing(world, serve):
    service = serve()
    with pytest.raises(BadRequest, match="unknown field 'nobody'"):
        service.score(REQUEST | {"nobody": 1}, CANDIDATES, FEATURES)
    assert service.stats.bad_requests == 1 and np.array_equal(score(service).scores, expected(world, 2))


def test_what_is_answered_is_counted_by_version(world, serve):
    service = serve(canary=0.5)
    for user in range(50):
        score(service, user)
    stats = service.stats.versions
    assert {n: s.candidates for n, s in stats.items()} == {n: 4 * s.requests for n, s in stats.items()}
    assert sum(s.requests for s in stats.values()) == 50 and set(stats) == {2, 3}
    assert stats[2].seconds.cumulative()[-1] == ("+Inf", float(stats[2].requests))
    assert stats[2].scores.cumulative()[-1] == ("+Inf", 4.0 * stats[2].requests)
    service.stats.keep({3})
    assert set(service.stats.versions) == {3}


def test_a_histogram_counts_up_to_and_with_each_bound():
    made = Histogram((0.1, 0.2))
    made.add(0.1)
    made.add_many(np.array([0.15, 0.2, 0.5], np.float32))
    assert made.cumulative() == [("0.1", 1.0), ("0.2", 3.0), ("+Inf", 4.0)] and made.sum == pytest.approx(0.95)
    assert list(SHARES) == sorted(SHARES)


def test_a_histogram_leaves_out_what_is_not_finite_and_its_sum_stays_a_number():
    made = Histogram((0.1, 0.2))
    made.add(float("nan"))
    made.add(float("inf"))
    made.add_many(np.array([np.nan, 0.15, -np.inf], np.float32))
    made.add_many(np.array([0.15], np.float32))
    assert made.cumulative() == [("0.1", 0.0), ("0.2", 2.0), ("+Inf", 2.0)] and made.sum == pytest.approx(0.3)


def test_a_shadow_compares_and_never_touches_the_answer(world, serve):
    kept = []
    shadow = Shadow(1.0, kept.extend)
    service = serve(shadow=shadow)
    candidates = np.array(CANDIDATES)
    for _ in range(20):
        answer = service.score(REQUEST, candidates, FEATURES)
        assert answer.version == 2 and np.array_equal(answer.scores, expected(world, 2))
        answer.scores[:] = 0.0  # the caller's own from now on
    candidates[:] = 0
    service.stop()
    assert shadow.compared == len(kept) == 20 and shadow.dropped == 0
    difference = np.abs(expected(world, 3) - expected(world, 2))
    for row in kept:
        assert (row.champion, row.challenger, row.candidates, row.error) == (2, 3, 4, "")
        assert row.mean_difference == pytest.approx(difference.mean()) and row.top_overlap == 1.0
        assert row.max_difference == pytest.approx(difference.max()) and row.challenger_seconds > 0


def test_what_a_shadow_looks_up_is_not_counted_among_what_was_answered(world, serve):
    service = serve(canary=0.25, shadow=Shadow(1.0))
    unknown = [0, 1001, 1002, 1003]  # three of four have no row of their own
    for user in range(40):
        service.score(REQUEST | {"user_id": user}, unknown, FEATURES)
    service.stop()
    assert service.shadow.compared == service.stats.versions[2].requests > 20
    for live in service.watcher.serving.resident():
        if live.number in (2, 3):
            candidates = service.stats.versions[live.number].candidates
            assert live.ranker.fallback_counts["item_id"] == 0.75 * candidates > 0, live.number


def test_a_shadow_that_is_too_slow_drops_requests_and_counts_them(world, serve, monkeypatch):
    shadow, go = Shadow(1.0, waiting=2), threading.Event()
    service = serve(shadow=shadow)
    real = service.watcher.serving.challenger.ranker.score

    def slow(*arguments):
        go.wait(30)
        return real(*arguments)

    monkeypatch.setattr(service.watcher.serving.challenger.ranker, "score", slow)
    began = time.monotonic()
    for _ in range(10):
        assert score(service).version == 2
    assert time.monotonic() - began < 25  # nobody waited for the shadow
    go.set()
    service.stop()
    assert shadow.compared + shadow.dropped == 10 and shadow.dropped >= 7


def test_a_shadow_that_fails_or_can_not_keep_its_rows_is_counted(world, serve, monkeypatch):
    def full(rows):
        raise OSError("no space left")

    def break_(*arguments):
        raise ValueError("broken")

    shadow = Shadow(1.0, full)
    service = serve(shadow=shadow)
    monkeypatch.setattr(service.watcher.serving.challenger.ranker, "score", break_)
    assert score(service).version == 2
    service.stop()
    assert (shadow.failed, shadow.not_kept, shadow.compared) == (1, 1, 0)


def test_a_shadow_takes_the_share_that_it_is_given(world, serve):
    shadow = Shadow(0.0)
    service = serve(shadow=shadow)
    score(service)
    service.stop()
    assert shadow.compared == shadow.dropped == 0


def test_overlap_is_the_share_of_best_candidates_that_both_agree_on():
    first, second = np.array([4.0, 3, 2, 1], np.float32), np.array([4.0, 1, 2, 3], np.float32)
    assert overlap(first, second, top=2) == 0.5 and overlap(first, second, top=4) == 1.0
    assert overlap(first[:0], second[:0]) == 1.0
