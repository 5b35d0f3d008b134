"""What nights leave, on a real Redis and a real disk."""

import json

import pytest

from jobs import cleanup
from jobs.board import Board
from jobs.config import JobsConfig, Limits
from jobs.desk import DEAD, Desk

DATES = ("2026-01-05", "2026-01-06", "2026-01-07")


@pytest.fixture
def config(board, redis_server, tmp_path):
    limits = Limits(keep_versions=1)
    return JobsConfig(broker=redis_server.url(0), state=redis_server.url(1), desk=tmp_path / "desk", limits=limits)


def give_up(config, board, date, phase="dead"):
    night = board.want("shop", date, "r.yaml")
    folder = Desk(config.desk).night_folder("shop", date)
    for name in ("log", "work"):
        (folder / name).mkdir(parents=True)
    (folder / "attempts.log").write_text("first line\nlast words\n")
    board.say(night.run, stage="train", line="last words")
    night = board.change(night.run, lambda n, now: n.moved(now, phase=phase))
    if phase == "dead":
        cleanup.bury(config, night)
    return folder


def test_of_nights_given_up_only_the_newest_keep_their_results_and_all_keep_their_letter(config, board):
    dead, cancelled, newest = (
        give_up(config, board, date, phase) for date, phase in zip(DATES, ("dead", "cancelled", "dead"), strict=True)
    )
    for folder in (dead, cancelled):
        assert not (folder / "work").exists() and not (folder / "log").exists()
        assert (folder / "attempts.log").exists() and board.lines(f"shop@{folder.name}") == []
    assert (newest / "work").exists() and len(board.lines(f"shop@{DATES[2]}")) == 1
    assert json.loads((dead / DEAD).read_text())["last_lines"] == ["first line", "last words"]
    assert [n.phase for n in board.all()] == ["dead", "cancelled", "dead"]  # else the schedule would start them again


def test_a_night_that_is_retried_while_others_are_shed_keeps_what_it_needs(config, board, monkeypatch):
    retried, _ = (give_up(config, board, date, "cancelled") for date in DATES[:2])
    before = board.all()
    monkeypatch.setattr(Board, "all", lambda _: before)  # read just before
    board.change(f"shop@{DATES[0]}", lambda n, now: n.moved(now, phase="queued"))
    cleanup.shed(config, "shop")
    assert (retried / "log").exists() and (retried / "work").exists() and board.lines(f"shop@{DATES[0]}")
    board.change(f"shop@{DATES[0]}", lambda n, now: n.moved(now, phase="cancelled"))
    cleanup.shed(config, "shop")
    assert not (retried / "log").exists() and not board.lines(f"shop@{DATES[0]}")
