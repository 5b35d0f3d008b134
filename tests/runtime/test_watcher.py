"""The watcher on a real registry: what it takes over, what it refuses, and what it serves when there is nothing."""

import dataclasses
import gc
import json
import logging
import os
import sys
import time
import weakref

import numpy as np
import pytest

from recsys_kd.errors import OutsideError
from recsys_kd.registry.store import rebuild
from recsys_kd.registry.where import open_registry
from recsys_kd.runtime.lastgood import PointerFile
from recsys_kd.runtime.versions import NoModel
from recsys_kd.runtime.watcher import Watcher
from tests.attacks.test_rules import other_weights
from tests.redis_server import RedisServer
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST, World, another_models


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def watch(world):
    """Start watchers that are stopped at the end; polled by hand unless told otherwise."""
    started = []

    def start(registry=None, seconds=3600.0, **options):
        watcher = Watcher("shop", registry or world.registry, world.pointers, seconds=seconds, **options)
        started.append(watcher)
        watcher.start()
        return watcher

    yield start
    for watcher in started:
        watcher.stop()


class Down:
    """A registry that does not answer, or answers nonsense."""

    def __init__(self, error):
        self.error = error

    def state(self, model):
        raise self.error

    def announce(self, model, service, digest, seconds):
        raise self.error


class Fixed:
    """A registry that always says the same."""

    def __init__(self, said):
        self.said = said

    def state(self, model):
        return self.said

    def announce(self, model, service, digest, seconds):
        pass


def scores(live):
    return live.ranker.score(REQUEST, CANDIDATES, FEATURES)


def number(watcher):
    return watcher.serving.champion.number


def test_a_promoted_version_serves_after_a_poll_and_the_one_before_stays_in_memory(world, watch):
    world.publish(1)
    watcher = watch()
    first = watcher.serving.champion
    assert not watcher.poll() and number(watcher) == 1
    world.publish(2)
    assert watcher.poll() and number(watcher) == 2
    assert watcher.serving.previous is first and (scores(first) != scores(watcher.serving.champion)).any()


def test_a_published_version_is_live_within_two_polls_without_being_asked_for(world, watch):
    world.publish(1)
    watcher = watch(seconds=0.05)
    world.publish(2)
    deadline = time.monotonic() + 20
    while number(watcher) != 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert number(watcher) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_requests_go_before_the_thread_that_verifies(world, watch):
    world.publish(1)
    here = os.getpriority(os.PRIO_PROCESS, 0)
    watcher = watch(seconds=0.05)
    polled = watcher.answered_at
    while watcher.answered_at == polled:
        time.sleep(0.01)
    assert os.getpriority(os.PRIO_PROCESS, watcher._thread.native_id) == max(here, 10)
    assert os.getpriority(os.PRIO_PROCESS, 0) == here


def test_a_rollback_is_live_after_one_poll_without_reading_the_artifact_again(world, watch):
    first = world.publish(1)
    watcher = watch()
    world.publish(2)
    watcher.poll()
    live, hidden = watcher.serving.previous, first.with_name("hidden")
    world.registry.rollback("shop", lambda path: None, "ann", "")
    first.rename(hidden)
    assert watcher.poll() and watcher.serving.champion is live and number(watcher) == 1
    assert watcher.serving.previous.number == 2


def test_a_restarted_service_has_previous_in_memory_too(world, watch):
    world.publish(1)
    world.publish(2)
    assert watch().serving.previous.number == 1


def test_an_old_version_leaves_memory_with_its_last_request(world, watch):
    world.publish(1)
    watcher = watch()
    held = watcher.serving.champion  # a request that goes on
    gone = weakref.ref(held)
    for seed in (2, 3):
        world.publish(seed)
        watcher.poll()
    assert [x.number for x in watcher.serving.resident()] == [3, 2]
    assert scores(held).shape == (4,)
    gc.disable()
    try:
        del held
        assert gone() is None
    finally:
        gc.enable()


LIES = {
    "an artifact that is not there": ("exists", lambda w: w.register(w.store / "shop" / ("0" * 64))),
    "another digest than its folder's": ("digest", lambda w: w.register(w.artifact(5), "1" * 64)),
    "a broken artifact": ("sha256", lambda w: w.register(other_weights(w.artifact(6)))),
    "another model's artifact": ("model", lambda w: w.register(another_models(w.store))),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_the_registry_may_not_name_is_refused_with_its_reason_and_the_model_stays(world, watch, lie):
    reason, register = LIES[lie]
    world.publish(1)
    events = []
    watcher = watch(tell=events.append)
    live = watcher.serving.champion
    world.promote(register(world))
    assert not watcher.poll() and watcher.serving.champion is live
    assert watcher.refusals == {reason: 1} and events[-1].reason == reason and events[-1].number == 2
    assert "{" not in events[-1].detail
    world.publish(3)
    assert watcher.poll() and number(watcher) == 3 and watcher.fault is None


def test_a_refused_artifact_is_looked_at_again_later_not_at_every_poll(world, watch, monkeypatch):
    world.publish(1)
    watcher = watch(seconds=10.0)
    path = world.artifact(2)
    hidden = path.rename(path.with_name("late"))
    world.promote(world.register(path))
    for _ in range(3):
        watcher.poll()
    assert watcher.refusals == {"exists": 1}
    hidden.rename(path)
    monkeypatch.setattr("recsys_kd.runtime.loader.time.monotonic", lambda: time.perf_counter() + 1e6)
    assert watcher.poll() and number(watcher) == 2


def test_a_registry_that_is_down_or_talks_nonsense_changes_nothing_and_is_told_of_once(world, watch):
    world.publish(1)
    events = []
    watcher = watch(tell=events.append)
    for error, reason in ((OutsideError("no answer"), "registry-unreachable"), (KeyError("x"), "registry-unreadable")):
        watcher.registry = Down(error)
        assert [watcher.poll(), watcher.poll()] == [False, False] and number(watcher) == 1
        assert watcher.refusals[reason] == 2 and [e.reason for e in events[1:]].count(reason) == 1


def test_a_real_registry_file_that_is_destroyed_or_emptied_changes_nothing(world, watch, tmp_path):
    world.publish(1)
    watcher = watch()
    for name in ("registry.sqlite", "registry.sqlite-wal", "registry.sqlite-shm"):
        (world.store / name).unlink(missing_ok=True)
    (world.store / "registry.sqlite").write_bytes(b"no database at all" * 100)
    watcher.poll()
    watcher.registry = open_registry(None, tmp_path / "empty")
    watcher.poll()
    assert watcher.refusals == {"registry-unreachable": 1, "no-champion": 1} and number(watcher) == 1


def test_a_real_redis_that_is_killed_is_followed_again_when_it_is_back(world, watch, tmp_path):
    server = RedisServer(tmp_path)
    try:
        world.registry = open_registry(server.url(), tmp_path)
        world.publish(1)
        watcher = watch()
        server.kill()
        assert not watcher.poll() and number(watcher) == 1 and watcher.refusals == {"registry-unreachable": 1}
        server.start()
        world.publish(2)
        assert watcher.poll() and number(watcher) == 2 and watcher.fault is None
    finally:
        server.stop()


def test_a_registry_that_went_back_in_time_is_not_followed(world, watch, tmp_path):
    world.publish(1)
    older = world.registry.state("shop")
    world.publish(2)
    watcher = watch()
    stale = open_registry(None, tmp_path / "stale")
    stale.restore("shop", older, "ann")
    watcher.registry = stale
    assert not watcher.poll() and number(watcher) == 2 and watcher.refusals == {"stale-epoch": 1}
    watcher.stop()
    again = watch(stale)  # the epoch is remembered on disk
    assert number(again) == 2 and again.refusals == {"stale-epoch": 1}


def test_after_a_rebuild_services_follow_the_next_champion(world, watch, tmp_path):
    for seed in (1, 2, 3):
        world.publish(seed)
    watcher = watch()
    assert watcher.epoch == 3
    rebuilt = open_registry(None, tmp_path / "rebuilt")
    rebuild(rebuilt, world.store, "shop", "ann")
    watcher.registry = world.registry = rebuilt
    assert not watcher.poll() and watcher.refusals == {"no-champion": 1}
    fourth = world.publish(4)
    assert watcher.poll() and watcher.serving.champion.digest == fourth.name
    watcher.stop()
    assert watch(rebuilt).serving.champion.digest == fourth.name


def test_an_epoch_that_no_registry_gives_is_not_remembered(world, watch):
    world.publish(1)
    watcher = watch()
    true = world.registry.state("shop")
    pointer = dataclasses.replace(true.aliases["champion"], epoch=9 * 10**18)
    broken = dataclasses.replace(true, aliases={"champion": pointer})
    watcher.registry = Fixed(broken)
    assert not watcher.poll() and watcher.refusals == {"registry-unreadable": 1} and watcher.epoch == 1
    assert "epoch 9000000000000000000" in str(watcher.fault)
    watcher.registry = world.registry
    second = world.publish(2)
    assert watcher.poll() and watcher.serving.champion.digest == second.name


def test_without_a_registry_a_restarted_service_serves_the_last_known_good_version(world, watch):
    world.publish(1)
    world.publish(2)
    watch().stop()
    events = []
    again = watch(Down(OutsideError("no answer")), tell=events.append)
    assert number(again) == 2 and again.epoch == 2
    assert [e.reason for e in events if hasattr(e, "reason")] == ["registry-unreachable"]
    assert events[-1].source == "last-known-good"


def test_the_last_known_good_version_is_verified_again(world, watch):
    other_weights(first := world.publish(1))
    with pytest.raises(NoModel, match="refused by check 'sha256'"):
        watch()
    good = world.publish(2)
    watch().stop()
    other_weights(good)
    with pytest.raises(NoModel, match="nothing to serve: no answer"):
        watch(Down(OutsideError("no answer")))
    assert first.exists()


def test_a_new_host_whose_champion_is_broken_serves_the_one_before(world, watch):
    world.publish(1)
    other_weights(world.publish(2))
    events = []
    watcher = watch(tell=events.append)
    assert number(watcher) == 1 and events[-1].source == "previous" and watcher.refusals == {"sha256": 1}


def test_with_nothing_sound_the_start_is_refused_in_words(world, watch):
    with pytest.raises(NoModel, match="the registry names no champion of 'shop'"):
        watch()


@pytest.mark.parametrize("text", ["", "[]", '{"model": "shop"}', "[" * 5000, '{"model":"other","number":1}'])
def test_a_damaged_pointer_file_is_counted_and_the_registry_decides(world, watch, text):
    world.publish(1)
    watch().stop()
    PointerFile(world.pointers, "shop").path.write_text(text)
    watcher = watch()
    assert number(watcher) == 1 and watcher.refusals == {"pointer": 1}
    assert PointerFile(world.pointers, "shop").read().number == 1


def test_a_pointer_that_can_not_be_written_keeps_nobody_from_serving(world, watch):
    world.publish(1)
    world.pointers.write_text("a file where a folder should be")
    watcher = watch()
    assert number(watcher) == 1 and watcher.refusals["pointer"] >= 1


def test_what_serves_is_announced_so_that_it_is_not_collected(world, watch):
    path = world.publish(1)
    watch()
    assert list(world.registry.serving("shop").values()) == [path.name]


def test_a_store_that_this_host_sees_elsewhere_is_used_instead_of_the_registrys_paths(world, watch, tmp_path):
    path = world.publish(1)
    seen = tmp_path / "mounted"
    (seen / "shop").mkdir(parents=True)
    path.rename(seen / "shop" / path.name)
    assert watch(store=seen).serving.champion.path == str(seen / "shop" / path.name)


def test_a_swap_is_one_line_of_json(world, watch, caplog):
    world.publish(1)
    with caplog.at_level(logging.INFO, "recsys_kd.serving"):
        watcher = watch()
        world.publish(2)
        watcher.poll()
        watcher.poll()
    lines = [json.loads(record.message) for record in caplog.records]
    assert [(x["event"], x["number"], x["before"], x["source"]) for x in lines] == [
        ("swap", 1, None, "loaded"),
        ("swap", 2, 1, "loaded"),
    ]


def test_scores_of_a_loaded_version_are_the_artifacts_own(world, watch):
    from recsys_kd.runtime.ranker import Ranker

    path = world.publish(1)
    assert np.array_equal(scores(watch().serving.champion), Ranker.open(path).score(REQUEST, CANDIDATES, FEATURES))
