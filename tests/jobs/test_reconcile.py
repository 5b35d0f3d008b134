"""Wanted against published, on a real Redis; what would be sent is looked at instead of run."""

import datetime as dt
import json
import os
import subprocess
import sys

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from jobs import machine, owners, reconcile, stages
from jobs.cli import app
from jobs.config import Scheduled
from jobs.desk import Desk, Wanted, write_whole
from jobs.places import StoreAway
from recsys_kd.registry.protocol import StalePublisher
from recsys_kd.registry.sqlite import SqliteRegistry
from recsys_kd.registry.store import write_copy
from tests.chaos.faults import unmounted
from tests.registry.test_registry import add, verdict

DATES = ("2026-01-05", "2026-01-06", "2026-01-07")


def want(config, tmp_path, model="shop", dates=DATES, **more):
    path = tmp_path / f"{model}.yaml"
    path.write_text(yaml.safe_dump({"name": model, "data": {"path": "log"}, "store": "store", **more}))
    for date in dates:
        Desk(config.desk).want(Wanted(model, date, str(path)))
    return path


def publish(tmp_path, date, model="shop", store="store"):
    registry = SqliteRegistry(tmp_path / store / "registry.sqlite")
    version = add(registry, f"artifact of {date}", model)
    claim, given = registry.claim(model, date), verdict(version.digest)
    registry.publish(model, version.number, given, registry.epoch(model), claim, "ann")
    (tmp_path / store / model).mkdir(exist_ok=True)
    write_copy(registry, tmp_path / store, model)


def freeze(config, tmp_path, date, model="shop", **more):
    """Leave on the desk what a night is published by, as its first stage does."""
    plain = {"name": model, "data": {"path": "log"}, "store": str(tmp_path / "store"), **more}
    write_whole(Desk(config.desk).night_folder(model, date) / "recipe.yaml", yaml.safe_dump(plain))


def go(config):
    sent = []
    started = reconcile.reconcile(config, lambda night: sent.append(night.run))
    assert started.started == sent
    return sent


def phases(board):
    return {n.run: n.phase for n in board.all()}


def test_the_oldest_missing_night_is_started_once(config, board, tmp_path):
    want(config, tmp_path)
    publish(tmp_path, DATES[0])
    assert go(config) == ["shop@2026-01-06"] and go(config) == []
    assert list(phases(board).values()) == ["published", "queued", "waiting"]


def test_nights_come_back_when_redis_was_emptied_and_dead_ones_stay_dead(config, board, tmp_path):
    want(config, tmp_path)
    publish(tmp_path, DATES[0])
    go(config)
    folder = Desk(config.desk).night_folder("shop", DATES[1])
    folder.mkdir(parents=True)
    (folder / "dead.json").write_text("{}")
    board.redis.flushall()
    assert go(config) == ["shop@2026-01-07"]
    assert list(phases(board).values()) == ["published", "dead", "queued"]


def command(monkeypatch, config, *arguments):
    """Run `recsys-kd jobs ...` with a configuration; what it would start is not sent."""
    monkeypatch.setattr("jobs.cli.from_environment", lambda: config)
    monkeypatch.setattr("jobs.tasks.send", lambda night: None)
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_a_cancelled_night_stays_so_when_redis_was_emptied_until_it_is_retried(config, board, tmp_path, monkeypatch):
    path = want(config, tmp_path, dates=DATES[:1])
    (run,) = go(config)
    assert "cancelled by" in command(monkeypatch, config, "cancel", run).stdout
    for _ in range(2):
        board.redis.flushall()
        assert go(config) == [] and phases(board) == {run: "cancelled"}
    board.redis.flushall()
    command(monkeypatch, config, "backfill", str(path), "--from", DATES[0], "--to", DATES[0])
    assert phases(board) == {run: "cancelled"}
    assert "waiting" in command(monkeypatch, config, "retry", run).stdout
    board.redis.flushall()
    assert go(config) == [run]


@pytest.mark.parametrize("given", ["moved away", "edited"])
def test_a_cancelled_night_can_not_be_published_whatever_became_of_its_recipe(
    config, board, tmp_path, monkeypatch, given
):
    path = want(config, tmp_path, dates=DATES[:1])
    (run,) = go(config)
    registry = SqliteRegistry(tmp_path / "store" / "registry.sqlite")
    claim, version = registry.claim("shop", DATES[0]), add(registry, "artifact")
    frozen = yaml.safe_load(path.read_text()) | {"store": str(tmp_path / "store")}
    write_whole(Desk(config.desk).night_folder("shop", DATES[0]) / "recipe.yaml", yaml.safe_dump(frozen))
    path.unlink()
    if given == "edited":
        path.write_text(yaml.safe_dump(frozen | {"store": str(tmp_path / "other")}))
    assert command(monkeypatch, config, "cancel", run).exit_code == 0
    with pytest.raises(StalePublisher):
        registry.publish("shop", version.number, verdict(version.digest), 0, claim, "ann")


def test_a_night_that_the_board_has_forgotten_is_not_started_again(config, board, tmp_path):
    config = config.model_copy(update={"limits": config.limits.model_copy(update={"keep_versions": 1})})
    want(config, tmp_path)
    for date in DATES[:2]:
        publish(tmp_path, date)
    assert go(config) == ["shop@2026-01-07"]
    assert phases(board) == {"shop@2026-01-06": "published", "shop@2026-01-07": "queued"}


def test_a_lost_registry_is_restored_before_anything_is_started(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:2])
    for date in DATES[:2]:
        publish(tmp_path, date)
    go(config)
    for file in (tmp_path / "store").glob("registry.sqlite*"):
        file.unlink()
    assert go(config) == []
    registry = SqliteRegistry(tmp_path / "store" / "registry.sqlite")
    assert sorted(registry.state("shop").nights) == list(DATES[:2]) and registry.epoch("shop") == 2


@pytest.mark.parametrize("redis", [False, True])
def test_a_store_whose_share_is_not_mounted_loses_no_night(config, board, redis_server, tmp_path, caplog, redis):
    limits = config.limits.model_copy(update={"keep_versions": 1})
    registry = redis_server.url(2) if redis else None
    config = config.model_copy(update={"limits": limits, "registry": registry})
    want(config, tmp_path, dates=DATES[:2])
    for date in DATES[:2]:
        publish(tmp_path, date)
    if redis:  # lost as well, and restored from the store
        assert go(config) == []
        redis_server.client(2).flushdb()
    assert go(config) == [] and phases(board) == {f"shop@{DATES[1]}": "published"}
    store = tmp_path / "store"
    with unmounted(store, "folder"):
        if redis:
            redis_server.client(2).flushdb()
        assert go(config) == [] and phases(board) == {f"shop@{DATES[1]}": "published"}
        assert list(store.iterdir()) == []
        assert f"store: {store / 'shop'} lacks what was published of shop; is its share mounted?" in caplog.text
    assert go(config) == [] and phases(board) == {f"shop@{DATES[1]}": "published"}


def test_a_night_does_not_begin_while_the_store_of_those_before_is_not_mounted(config, board, tmp_path):
    path = want(config, tmp_path, dates=DATES[:2])
    publish(tmp_path, DATES[0])
    (run,) = go(config)
    with unmounted(tmp_path / "store", "folder"):
        with pytest.raises(StoreAway):
            stages.perform(config, run, "prepare")
        assert list((tmp_path / "store").iterdir()) == []
    night = board.get(run)
    assert (night.phase, night.attempts) == ("waiting", 0) and night.waited > 0 and night.recipe == str(path)


def test_a_desk_that_can_not_be_looked_into_holds_up_one_model_alone(config, board, tmp_path):
    want(config, tmp_path, "a", dates=DATES[:1])
    want(config, tmp_path, "b", dates=DATES[:1])
    (config.desk / "nights").mkdir()
    (config.desk / "nights" / "a").symlink_to("x" * 300)  # no name that the system takes
    done = reconcile.reconcile(config, lambda night: None)
    assert done.started == [f"b@{DATES[0]}"]
    assert str(done.troubles["a"]).endswith("File name too long; make it readable and writable for this user")


def test_a_night_that_was_held_back_has_its_reason_on_the_board_from_its_result(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    checks = [{"sentence": "ECE 0.2 is above 0.02", "passed": False, "gates": True}]
    folder = Desk(config.desk).night_folder("shop", DATES[0])
    write_whole(folder / "result.json", json.dumps({"verdict": {"checks": checks}}))
    registry = SqliteRegistry(tmp_path / "store" / "registry.sqlite")
    version = add(registry, "artifact")
    claim = registry.claim("shop", DATES[0])
    registry.publish("shop", version.number, verdict(version.digest, passed=False), 0, claim, "ann")
    (tmp_path / "store" / "shop").mkdir()
    assert go(config) == []
    night = board.get(f"shop@{DATES[0]}")
    assert (night.outcome, night.reason) == ("held", "ECE 0.2 is above 0.02")


def test_a_rollback_outlives_the_registry(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:2])
    for date in DATES[:2]:
        publish(tmp_path, date)
    registry = SqliteRegistry(tmp_path / "store" / "registry.sqlite")
    back = registry.rollback("shop", lambda path: None, "ann", "clicks fell")
    go(config)
    for file in (tmp_path / "store").glob("registry.sqlite*"):
        file.unlink()
    go(config)
    assert SqliteRegistry(tmp_path / "store" / "registry.sqlite").state("shop").aliases["champion"] == back


def test_a_night_that_board_and_registry_disagree_about_is_what_the_registry_says(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    board.want("shop", DATES[0], str(tmp_path / "shop.yaml"))
    board.change(f"shop@{DATES[0]}", lambda n, now: machine.published(n, now, "live"))
    publish(tmp_path, "2026-01-01")
    assert go(config) == [f"shop@{DATES[0]}"] and board.get(f"shop@{DATES[0]}").reason == "the registry lost it"


def test_a_recipe_that_can_not_be_read_holds_up_nobody(config, board, tmp_path):
    want(config, tmp_path)
    want(config, tmp_path, "broken", seeds=1)
    assert go(config) == ["broken@2026-01-05", "shop@2026-01-05"]  # its first stage will say what is wrong with it


def test_a_worker_of_this_machine_that_is_gone_is_not_waited_for(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    (run,) = go(config)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = psutil.Process(other.pid).create_time()
    owner = f"{os.uname().nodename}:{other.pid}:{started:.2f}:1"
    board.change(run, lambda n, now: machine.claim(n, now, owner, "prepare", 1000, 5, False))
    assert go(config) == []
    other.kill()
    other.wait()
    assert owners.is_gone(owner) and go(config) == [run]
    assert "went silent" in board.get(run).reason


def test_the_schedule_wants_every_night_that_is_over(config, tmp_path):
    path = want(config, tmp_path, dates=())
    today = dt.datetime.now(dt.UTC).date()
    first = today - dt.timedelta(days=3)
    scheduled = config.model_copy(update={"models": (Scheduled(recipe=path, first=first),)})
    wanted = [w.night for w in reconcile.scheduled(scheduled, reconcile.yesterday(), {})]
    assert wanted == [(today - dt.timedelta(days=n)).isoformat() for n in (3, 2, 1)]
    assert go(scheduled) == [f"shop@{first}"]


def test_what_can_not_be_sent_waits_for_the_next_round(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])

    def refuse(night):
        raise ConnectionError("broker is away")

    assert reconcile.reconcile(config, refuse).started == []
    assert board.get(f"shop@{DATES[0]}").reason == "not sent: broker is away" and go(config) == [f"shop@{DATES[0]}"]
