"""What counts as a loss, and from when to when; times are small numbers of seconds."""

from dataclasses import replace

import pytest

from jobs.machine import Night
from tests.chaos.recovery import Timeline

NIGHT = Night("shop", "2026-01-05", "r.yaml", 0.0, 0.0)


def seen(*looks):
    """Return the losses that a watcher sees who looks once a second."""
    timeline = Timeline()
    for second, changes in enumerate(looks):
        timeline.look([] if changes is None else [replace(NIGHT, **changes)], float(second))
    return [r.seconds for r in timeline.recoveries()]


def at(phase, stage="train", owner=None, updated=0.0):
    return {"phase": phase, "stage": stage, "owner": owner, "updated": updated}


WHOLE = [
    at("waiting", "prepare"), at("queued", "prepare"), at("running", "prepare", "a"), at("queued"),
    at("running", "train", "b"), at("queued", "publish"), at("running", "publish", "c"), at("published", "publish"),
]  # fmt: skip


def test_a_night_without_trouble_has_lost_nothing_however_long_it_waits():
    assert seen(*WHOLE) == [] and seen(*[look for look in WHOLE for _ in range(9)]) == []


def test_a_lost_worker_counts_from_its_last_renewal_until_another_one_has_the_night():
    silent = [at("running", "train", "a", 1.0), at("running", "train", "a", 2.0), at("running", "train", "a", 2.0)]
    assert seen(*silent, at("running", "train", "b", 3.0)) == [2.0]
    assert seen(*silent, at("queued", "prepare"), at("running", "prepare", "b")) == [3.0]


def test_a_failed_attempt_counts_with_the_time_it_waits():
    assert seen(at("running", "train", "a"), at("waiting"), at("queued", "prepare"), *WHOLE[2:]) == [3.0]


def test_a_night_that_redis_lost_counts_once_from_when_it_was_last_seen():
    assert seen(at("queued"), at("queued"), None, None, at("waiting", "prepare"), *WHOLE[1:]) == [5.0]
    assert seen(at("waiting", "prepare"), None, None, *WHOLE) == []  # it waited for its turn anyway


def test_a_publication_that_the_registry_lost_counts_until_it_is_back():
    assert seen(at("published", "publish"), at("waiting", "prepare"), at("published", "publish")) == [2.0]


@pytest.mark.parametrize("end", [None, at("dead")])
def test_what_is_over_may_be_forgotten_and_what_is_dead_does_not_recover(end):
    assert seen(at("published", "publish"), None) == [] and seen(at("running", "train", "a"), end) == []
