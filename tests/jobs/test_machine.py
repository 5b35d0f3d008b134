"""Who may move a night, from where to where; times are small numbers of seconds."""

import pytest

from jobs import machine
from jobs.machine import Night, NotPossible, NotYours


@pytest.fixture
def waiting():
    return Night("shop", "2026-01-05", "r.yaml", 0.0, 0.0)


def claimed(night, now=1.0, owner="a", stage="prepare", gone=False, most=3):
    return machine.claim(night, now, owner, stage, 10.0, most, gone)


def queued(night, now=0.5):
    return machine.queue(night, now, 100.0)


def test_a_night_goes_from_stage_to_stage_and_counts_one_attempt(waiting):
    night = queued(waiting)
    for stage, following in (("prepare", "train"), ("train", "publish")):
        night = machine.finish_stage(claimed(night, stage=stage), 2.0, "a", 1.25)
        assert (night.phase, night.stage, night.owner) == ("queued", following, None)
    night = machine.published(claimed(night, stage="publish"), 5.0, "live")
    assert (night.phase, night.outcome, night.attempts, night.finished) == ("published", "live", 1, 5.0)
    assert night.seconds == {"prepare": 1.25, "train": 1.25}


def test_a_second_delivery_finds_nothing_to_do(waiting):
    running = claimed(queued(waiting))
    with pytest.raises(NotYours, match="is running at a"):
        claimed(running, owner="b")
    with pytest.raises(NotYours, match="is published"):
        claimed(machine.published(running, 2.0, "live"), owner="b")
    done = machine.finish_stage(running, 2.0, "a", 1.0)
    assert machine.is_past(done, "prepare") and not machine.is_past(done, "train")
    with pytest.raises(NotYours, match="its publish comes later"):
        claimed(done, stage="publish")


def test_a_silent_or_dead_owner_is_replaced_and_its_attempt_is_counted(waiting):
    running = claimed(queued(waiting))
    for night in (claimed(running, now=12.0, owner="b"), claimed(running, now=2.0, owner="b", gone=True)):
        assert (night.owner, night.attempts) == ("b", 2) and "worker a was lost in prepare" in night.reason
        with pytest.raises(NotYours, match="a lost it"):
            machine.renew(night, 13.0, "a", 10.0)
        with pytest.raises(NotYours):
            machine.finish_stage(night, 13.0, "a", 1.0)
    assert machine.renew(running, 9.0, "a", 10.0).lease_until == 19.0


def test_failures_wait_longer_each_time_and_end_as_a_dead_letter(waiting):
    night, waits = waiting, []
    for attempt in range(1, 4):
        night = claimed(queued(night, now=night.not_before), now=night.not_before)
        assert night.attempts == attempt
        night = machine.failed(night, 100.0, "a", "no disk", True, 3, 4.0)
        waits.append(night.not_before - 100.0)
    assert night.phase == "dead" and night.reason == "3 attempts, the last one: no disk"
    assert waits[:2] == [4.0, 8.0]


def test_an_attempt_that_takes_its_worker_with_it_is_counted_too(waiting):
    night = claimed(queued(waiting))
    for attempt in (2, 3):
        night = claimed(night, owner=f"w{attempt}", gone=True)
        assert night.attempts == attempt
    night = claimed(night, owner="w4", gone=True)
    assert night.phase == "dead" and "3 attempts, the last one: its worker w3 was lost" in night.reason


def test_bad_input_is_not_tried_again(waiting):
    night = machine.failed(claimed(queued(waiting)), 2.0, "a", "no column 'x'", False, 3, 4.0)
    assert (night.phase, night.reason) == ("dead", "no column 'x'")


def test_what_is_away_is_waited_for_as_long_again_as_so_far_and_no_attempt_is_counted(waiting):
    night, waits = waiting, []
    for _ in range(9):
        night = claimed(queued(night, now=night.not_before), now=night.not_before)
        night = machine.postponed(night, 100.0, "a", "no log", 1.0, 100.0, 2.0)
        waits.append(night.not_before - 100.0)
        if night.phase == "dead":
            break
        assert night.phase == "waiting" and night.attempts == 0
    # spent 1 + at least 2; 3 + 1, waits 4; 8 + 1, 9; 18 + 1, 19; 38 + 1, 39; 78 + 1: 21 are left; then none
    assert waits[:6] == [2.0, 4.0, 9.0, 19.0, 39.0, 21.0] and night.waited == 101.0
    assert night.phase == "dead" and night.reason == "no log; waited 101 s for it, limits.patience is 100 s"
    assert machine.retry(night, 200.0, "ann").waited == 0.0


def test_a_night_that_waits_for_what_is_away_says_for_how_long(waiting):
    night = machine.postponed(claimed(queued(waiting)), 2.0, "a", "no log", 5400.0, 21_600.0, 30.0)
    assert night.reason == "no log; tried again in 10 min, has waited 90 min of at most 6 h"  # 20 times the first wait


def held_up(night, now, patience=100.0):
    return machine.held_up(night, now, "no registry", 50.0, patience)


def test_time_in_which_the_reconciler_can_not_reach_a_model_counts_from_when_it_first_could_not(waiting):
    night = held_up(waiting.moved(0.0, waited=10.0, not_before=20.0), 19.0)
    assert night.held_since is None  # waits anyway
    night = held_up(held_up(night, 1000.0), 1030.0)
    assert (night.phase, night.waited, night.held_since) == ("waiting", 40.0, 1030.0)
    assert night.reason == (
        "no registry; tried again in every round of the reconciler, has waited 40 s of at most 100 s"
    )
    free = machine.let_go(night, 1040.0)
    assert (free.reason, held_up(free, 9000.0).waited) == ("", 40.0)
    dead = held_up(night, 1090.0)
    assert (dead.phase, dead.reason) == ("dead", "no registry; waited 100 s for it, limits.patience is 100 s")
    assert machine.let_go(dead, 1091.0) == dead == held_up(dead, 1091.0)
    assert held_up(machine.retry(dead, 2000.0, "ann"), 3000.0).waited == 0.0


def test_a_night_that_is_under_way_does_not_wait_for_the_reconciler(waiting):
    for night in (queued(waiting), claimed(queued(waiting))):
        assert held_up(night, 5.0) == night
    night = machine.queue(held_up(waiting, 5.0), 6.0, 100.0)
    assert night.held_since is None


def test_a_night_that_a_worker_takes_waits_for_the_reconciler_no_more(waiting):
    late = held_up(queued(waiting), 60.0)
    assert late.held_since == 60.0 and claimed(late, 61.0).held_since is None and claimed(late, 61.0).reason == ""
    silent = held_up(claimed(queued(waiting)), 60.0)  # its lease is over, and its worker is there all the same
    assert silent.held_since == 60.0
    for after in (
        machine.renew(silent, 61.0, "a", 10.0),
        machine.finish_stage(silent, 61.0, "a", 5.0),
        machine.failed(silent, 61.0, "a", "no", True, 3, 1.0),
        machine.postponed(silent, 61.0, "a", "no log", 5.0, 100.0, 1.0),
    ):
        assert after.held_since is None and "no registry" not in after.reason


def test_cancel_and_retry(waiting):
    night = machine.cancel(claimed(queued(waiting)), 2.0, "ann")
    assert (night.phase, night.reason) == ("cancelled", "cancelled by ann")
    with pytest.raises(NotYours):
        machine.renew(night, 3.0, "a", 10.0)
    again = machine.retry(night, 4.0, "bob")
    assert (again.phase, again.attempts) == ("waiting", 0) and "retried by bob" in again.reason
    done = machine.published(again, 5.0, "live")
    for step in (machine.cancel, machine.retry):
        with pytest.raises(NotPossible, match="published"):
            step(done, 6.0, "ann")


def test_a_night_that_waits_is_left_alone_until_its_time(waiting):
    night = waiting.moved(0.0, not_before=50.0)
    assert not machine.is_ready(night, 49.0, 100.0) and machine.is_ready(night, 50.0, 100.0)
    sent = queued(waiting)
    assert not machine.is_ready(sent, 99.0, 100.0) and machine.is_ready(sent, 101.0, 100.0)


def test_a_night_that_waits_long_in_a_queue_is_sent_again_and_its_first_message_stays_good(waiting):
    sent = machine.finish_stage(claimed(queued(waiting)), 2.0, "a", 1.0)
    again = machine.queue(sent, 150.0, 100.0)
    assert (again.stage, again.attempts) == ("train", 1) and machine.is_past(again, "prepare")
    assert claimed(again, now=151.0, stage="train").attempts == 1
