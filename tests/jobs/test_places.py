"""A model's nights in several places, and models that hold up no other, on a real Redis."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jobs import reconcile
from jobs.desk import Desk
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.chaos.faults import unmounted
from tests.jobs.test_reconcile import DATES, freeze, go, phases, publish, want

ROOT = Path(__file__).resolve().parents[2]


def cancel(config, board, date):
    """Cancel a night as `recsys-kd jobs cancel` does."""
    Desk(config.desk).cancel("shop", date, "ann")
    board.change(f"shop@{date}", lambda n, now: n.moved(now, phase="cancelled"))


def test_a_cancelled_night_of_another_store_keeps_nobody_from_the_later_ones(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    go(config)
    cancel(config, board, DATES[0])
    want(config, tmp_path, dates=(), store="elsewhere").rename(tmp_path / "other.yaml")
    want(config, tmp_path, dates=())
    for date in DATES[1:]:
        Desk(config.desk).want(reconcile.Wanted("shop", date, str(tmp_path / "other.yaml")))
    publish(tmp_path, DATES[1], store="elsewhere")
    for _ in range(2):  # the second time with an empty Redis
        assert go(config) == [f"shop@{DATES[2]}"]
        assert list(phases(board).values()) == ["cancelled", "published", "queued"]
        board.redis.flushall()


def test_nights_that_are_published_in_two_stores_are_looked_up_each_in_its_own(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:2])
    for date, store in zip(DATES, ("store", "moved"), strict=False):
        freeze(config, tmp_path, date, store=str(tmp_path / store))
        publish(tmp_path, date, store=store)
    for _ in range(2):
        assert go(config) == [] and list(phases(board).values()) == ["published", "published"]


def test_a_store_that_was_moved_with_all_that_was_published_is_the_models_from_then_on(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    freeze(config, tmp_path, DATES[0])
    publish(tmp_path, DATES[0])
    assert go(config) == []
    (tmp_path / "store").rename(tmp_path / "moved")
    want(config, tmp_path, dates=DATES, store="moved")
    assert go(config) == [f"shop@{DATES[1]}"]
    assert list(phases(board).values()) == ["published", "queued", "waiting"] and not (tmp_path / "store").exists()


def test_a_store_that_was_changed_without_moving_it_holds_the_model_up_and_says_so(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    freeze(config, tmp_path, DATES[0])
    publish(tmp_path, DATES[0])
    assert go(config) == []
    want(config, tmp_path, dates=DATES[:2], store="moved")
    done = reconcile.reconcile(config, lambda night: None)
    assert done.started == [] and f"{tmp_path}/moved/shop lacks what was published" in str(done.troubles["shop"])
    assert "If `store` was changed in the recipe, change it back, or move the old store" in str(done.troubles["shop"])
    assert list(phases(board).values()) == ["published", "waiting"]


def test_a_store_that_is_away_is_told_though_nothing_waits_for_it(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    publish(tmp_path, DATES[0])
    assert go(config) == []
    with unmounted(tmp_path / "store", "folder"):
        assert list(reconcile.reconcile(config, lambda night: None).troubles) == ["shop"]


@pytest.fixture
def defect(monkeypatch):
    """Let one model's registry bring about what nobody has foreseen."""
    state = SqliteRegistry.state

    def broken(registry, model):
        if model == "a":
            raise ValueError("nobody foresaw it")
        return state(registry, model)

    monkeypatch.setattr(SqliteRegistry, "state", broken)


@pytest.mark.usefixtures("defect")
def test_a_defect_in_one_model_holds_up_that_model_alone_and_is_logged(config, board, tmp_path, caplog):
    for model in ("a", "b"):
        want(config, tmp_path, model, dates=DATES[:1])
    done = reconcile.reconcile(config, lambda night: None)
    assert done.started == [f"b@{DATES[0]}"] and "nobody foresaw it" in board.get(f"a@{DATES[0]}").reason
    assert str(done.troubles["a"]).startswith("ValueError: nobody foresaw it; the log says where")
    assert any(record.exc_info for record in caplog.records)


def test_the_reconciler_goes_on_whatever_a_round_meets(config, board, tmp_path):
    want(config, tmp_path, dates=DATES[:1])
    plain = {"broker": config.broker, "state": config.state, "desk": str(config.desk), "limits": {"reconcile": 0.1}}
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(plain))
    key = f"recsys_kd_jobs:night:{board.want('other', DATES[0], 'r.yaml').run}"
    board.redis.set(key, "no JSON")
    environment = {**os.environ, "RECSYS_KD_JOBS": str(tmp_path / "jobs.yaml"), "PYTHONPATH": str(ROOT)}
    reconciler = subprocess.Popen(
        [sys.executable, "-m", "jobs.reconciler"], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        assert "JSONDecodeError" in reconciler.stderr.readline()
        board.redis.delete(key)
        deadline = time.monotonic() + 60
        while board.get(f"shop@{DATES[0]}") is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert board.get(f"shop@{DATES[0]}") is not None and reconciler.poll() is None
    finally:
        reconciler.kill()
        reconciler.communicate()


def test_what_the_system_says_without_naming_a_file_is_told_of_the_desk(config):
    told = rf"^desk {config.desk}, or a store: too bad; make"
    with pytest.raises(reconcile.DeskAway, match=told), reconcile._told_as_outside(Desk(config.desk)):
        raise OSError("too bad")
