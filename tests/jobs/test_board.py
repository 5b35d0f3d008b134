"""The board on a real Redis."""

import json
import threading
from dataclasses import asdict

import pytest

from jobs import machine
from jobs.board import Board, BoardUnreachable
from jobs.machine import NotYours
from tests.redis_server import free_port


def test_a_night_is_wanted_once(board):
    first = board.want("shop", "2026-01-05", "r.yaml")
    board.change(first.run, lambda n, now: machine.queue(n, now, 100))
    assert board.want("shop", "2026-01-05", "other.yaml").phase == "queued"
    assert [n.recipe for n in board.all()] == ["r.yaml"]


def test_one_night_per_model_is_under_way_the_oldest_first(board):
    for night in ("2026-01-06", "2026-01-05"):
        for model in ("a", "b"):
            board.want(model, night, "r.yaml")
    assert board.queue_next("a", 100).run == "a@2026-01-05"
    assert board.queue_next("a", 100) is None and board.queue_next("b", 100).run == "b@2026-01-05"
    board.change("a@2026-01-05", lambda n, now: machine.published(n, now, "live"))
    assert board.queue_next("a", 100).run == "a@2026-01-06"


def test_a_dead_or_waiting_night_does_not_hold_up_the_next(board):
    for day in (5, 6, 7):
        board.want("a", f"2026-01-0{day}", "r.yaml")
    board.change("a@2026-01-05", lambda n, now: n.moved(now, phase="dead"))
    board.change("a@2026-01-06", lambda n, now: n.moved(now, not_before=now + 60))
    assert board.queue_next("a", 100).run == "a@2026-01-07"


def test_of_many_workers_one_gets_the_stage(board, redis_server):
    board.want("a", "2026-01-05", "r.yaml")
    board.queue_next("a", 100)
    got = []

    def work(owner):
        mine = Board(redis_server.url(1))
        try:
            mine.change("a@2026-01-05", lambda n, now: machine.claim(n, now, owner, "prepare", 30, 5, False))
            got.append(owner)
        except NotYours:
            pass

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and board.get("a@2026-01-05").owner == got[0]


def test_lines_are_read_from_where_one_was(board):
    for n in range(3):
        board.say("a@1", stage="train", line=str(n))
    found = board.lines("a@1")
    assert [entry["line"] for _, entry in found] == ["0", "1", "2"]
    assert [entry["line"] for _, entry in board.lines("a@1", found[1][0])] == ["2"]


def test_only_the_logs_of_forgotten_nights_go(board):
    for run in ("shop@2026-01-05", "shop@2026-01-06"):
        board.say(run, stage="train", line="one")
    board.forget_lines([])
    board.forget_lines(["shop@2026-01-05", "shop@2025-01-01"])
    assert board.lines("shop@2026-01-05") == [] and len(board.lines("shop@2026-01-06")) == 1


def test_a_night_that_is_forgotten_leaves_nothing_in_redis(board):
    for day in (5, 6):
        board.want("shop", f"2026-01-0{day}", "r.yaml")
        board.say(f"shop@2026-01-0{day}", stage="train", line="one")
    board.forget([])
    board.forget(["shop@2026-01-05"])
    assert [n.run for n in board.all()] == ["shop@2026-01-06"]
    assert not [key for key in board.redis.scan_iter() if "2026-01-05" in key]


def test_what_a_later_version_wrote_beside_a_night_is_left_out(board):
    night = board.want("shop", "2026-01-05", "r.yaml")
    (key,) = board.redis.scan_iter(match="*night:*")
    board.redis.set(key, json.dumps(asdict(night) | {"priority": 1}))
    assert board.all() == [night] and board.get(night.run) == night


def test_a_redis_that_is_down_is_named():
    with pytest.raises(BoardUnreachable, match=r"127\.0\.0\.1.*nights go on when it answers again"):
        Board(f"redis://127.0.0.1:{free_port()}/1").all()
