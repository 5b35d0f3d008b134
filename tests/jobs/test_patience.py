"""What keeps the reconciler from a model is waited for, on a real Redis: for how long, and what else does not count."""

import datetime as dt
import time

from jobs import machine, reconcile
from jobs.config import Scheduled
from jobs.desk import Desk
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.jobs.test_reconcile import DATES, go, phases, publish, want
from tests.redis_server import free_port


def patient(config, seconds):
    return config.model_copy(update={"limits": config.limits.model_copy(update={"patience": seconds})})


def block(tmp_path, model="shop"):
    """Let nobody read or write the store's copy of a model's registry."""
    path = tmp_path / "store" / model / "registry.json"
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)
    return path


def test_what_keeps_the_reconciler_from_a_model_is_waited_for_no_longer_than_the_patience(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:2])
    want(config, tmp_path, "toys", dates=DATES[:1])
    SqliteRegistry(tmp_path / "store" / "registry.sqlite")
    block(tmp_path)
    done = reconcile.reconcile(patient(config, 0.2), lambda night: None)
    assert done.started == [f"toys@{DATES[0]}"] and list(done.troubles) == ["shop"]
    first, second = (board.get(f"shop@{date}") for date in DATES[:2])
    assert (first.phase, first.waited) == ("waiting", 0.0)
    assert "registry.json: " in first.reason and first.reason.endswith("has waited 0 s of at most 0.2 s")
    board.change(second.run, lambda n, now: n.moved(now, not_before=now + 60))  # it waits for something of its own
    time.sleep(0.25)
    reconcile.reconcile(patient(config, 0.2), lambda night: None)
    assert phases(board) == {first.run: "dead", second.run: "waiting", f"toys@{DATES[0]}": "queued"}
    assert "limits.patience is 0.2 s" in board.get(first.run).reason
    assert (Desk(config.desk).night_folder("shop", DATES[0]) / "dead.json").exists()


def test_a_model_that_is_reached_again_goes_on_and_counts_no_more(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:2])
    SqliteRegistry(tmp_path / "store" / "registry.sqlite")
    path = block(tmp_path)
    assert go(config) == []
    path.rmdir()
    assert go(config) == [f"shop@{DATES[0]}"]
    night = board.get(f"shop@{DATES[1]}")
    assert (night.phase, night.reason, night.held_since) == ("waiting", "", None)


def test_new_nights_of_the_schedule_are_told_while_the_registry_is_away_and_published_ones_are_not(
    config, board, tmp_path
):
    path = want(config, tmp_path, dates=())
    first = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=3)
    days = [(first + dt.timedelta(days=n)).isoformat() for n in range(3)]
    publish(tmp_path, days[0])
    away = f"redis://127.0.0.1:{free_port()}/0"
    config = config.model_copy(update={"models": (Scheduled(recipe=path, first=first),), "registry": away})
    assert go(config) == []
    assert phases(board) == {f"shop@{day}": "waiting" for day in days[1:]}
    assert away in board.get(f"shop@{days[1]}").reason
    board.redis.flushall()
    block(tmp_path)  # nobody can tell now which nights are new
    assert go(config) == [] and phases(board) == {}


def test_a_night_that_is_taken_while_the_registry_is_away_uses_up_no_patience_as_it_runs(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    SqliteRegistry(tmp_path / "store" / "registry.sqlite")
    (run,) = go(config)
    path = block(tmp_path)
    config = config.model_copy(update={"limits": config.limits.model_copy(update={"requeue": 0.1, "patience": 2.0})})
    time.sleep(0.15)  # its message waits in a queue for longer than `requeue`
    assert go(config) == [] and board.get(run).held_since is not None
    board.change(run, lambda n, now: machine.claim(n, now, "a", "prepare", 60.0, 5, False))
    assert (board.get(run).held_since, board.get(run).reason) == (None, "")
    time.sleep(2.1)  # it is trained, for longer than the patience
    board.change(run, lambda n, now: machine.postponed(n, now, "a", "no store", 0.1, 2.0, 0.0))
    time.sleep(0.25)
    assert path.is_dir() and go(config) == []
    night = board.get(run)
    assert night.phase == "waiting" and night.waited < 1.0
