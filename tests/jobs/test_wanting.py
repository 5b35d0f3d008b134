"""What `submit` and `backfill` take, refuse and record, and what is told of nights afterwards; on a real Redis."""

import datetime as dt
import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from jobs import machine
from jobs.cli import extend
from jobs.config import Scheduled
from jobs.desk import Desk, DeskUnwritable, write_whole
from jobs.machine import NotPossible
from jobs.reconcile import Unreconciled
from jobs.wanting import CantBeWanted, NotStarted
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.jobs.test_reconcile import freeze, publish
from tests.redis_server import free_port

_TODAY = dt.datetime.now(dt.UTC).date()
DATES = tuple((_TODAY - dt.timedelta(days=n)).isoformat() for n in (9, 8, 7))
BEFORE = tuple((_TODAY - dt.timedelta(days=n)).isoformat() for n in (400, 399))
"""Days before the log."""


@pytest.fixture
def run(config, monkeypatch):
    """Return what runs `recsys-kd ...`; what it would start is not sent."""
    root = typer.Typer()
    extend(root)

    def run(*arguments, **changes):
        monkeypatch.setattr("jobs.cli.from_environment", lambda: config.model_copy(update=changes))
        monkeypatch.setattr("jobs.tasks.send", lambda night: None)
        return CliRunner().invoke(root, [str(a) for a in arguments], catch_exceptions=False)

    return run


@pytest.fixture
def recipe(tmp_path):
    """Return a recipe whose log has three days, each an empty file: nobody reads them here."""
    for date in DATES:
        write_whole(tmp_path / "log" / f"day={date}" / "part.parquet", "")
    return write(tmp_path, "shop")


def write(tmp_path, file, **more):
    path = tmp_path / f"{file}.yaml"
    path.write_text(yaml.safe_dump({"name": "shop", "data": {"path": "log"}, "store": "store", **more}))
    return path


def wanted(config):
    return [f"{w.model}@{w.night}" for w in Desk(config.desk).wanted()]


def test_a_night_that_is_still_to_come_is_refused(config, board, recipe, run):
    today = dt.datetime.now(dt.UTC).date()
    later = today + dt.timedelta(days=1)
    for arguments in (
        ("submit", recipe, "--night", later),
        ("jobs", "backfill", recipe, "--from", today, "--to", later),
    ):
        with pytest.raises(CantBeWanted, match=f"night {later} is still to come, today is {today}") as error:
            run(*arguments)
        assert error.value.exit_code == 2
    assert wanted(config) == [] == board.all()
    assert run("submit", recipe, "--night", today).exit_code == 0


def test_nights_of_a_log_that_names_no_days_are_submitted_one_by_one(config, recipe, run, tmp_path):
    (tmp_path / "clicks.parquet").write_text("")
    path = write(tmp_path, "whole", data={"path": "clicks.parquet"})
    with pytest.raises(
        CantBeWanted, match=r"clicks.parquet has no folders that name a day.*each of 3 nights would read"
    ):
        run("jobs", "backfill", path, "--from", DATES[0], "--to", DATES[2])
    assert wanted(config) == []
    run("submit", path, "--night", DATES[0])
    assert wanted(config) == [f"shop@{DATES[0]}"]


def test_nights_before_the_log_begins_are_refused_by_its_first_day(config, board, recipe, run):
    with pytest.raises(
        CantBeWanted, match=rf"night {BEFORE[0]} lies before data.path: .*log begins on {DATES[0]}; start"
    ):
        run("jobs", "backfill", recipe, "--from", BEFORE[0], "--to", DATES[2])
    assert wanted(config) == [] == board.all()


def test_a_log_that_is_away_refuses_nothing(config, recipe, run, tmp_path):
    (tmp_path / "log").rename(tmp_path / "away")
    run("jobs", "backfill", recipe, "--from", BEFORE[0], "--to", BEFORE[1])
    assert wanted(config) == [f"shop@{date}" for date in BEFORE]


def test_all_nights_are_recorded_though_redis_is_down(config, recipe, run):
    away = f"redis://127.0.0.1:{free_port()}/1"
    with pytest.raises(
        NotStarted, match=r"^3 nights are recorded in .*/desk/wanted and will run: redis://127.0.0.1"
    ) as e:
        run("jobs", "backfill", recipe, "--from", DATES[0], "--to", DATES[2], state=away)
    assert wanted(config) == [f"shop@{date}" for date in DATES] and e.value.exit_code == 3
    with pytest.raises(NotStarted, match=rf"^shop@{DATES[0]} is recorded in .* and will run: .*when it answers again$"):
        run("submit", recipe, "--night", DATES[0], state=away)
    assert run("jobs", "reconcile").stdout == f"shop@{DATES[0]}\n"


def test_a_night_that_is_wanted_with_another_recipe_is_refused(config, board, recipe, run, tmp_path):
    run("submit", recipe, "--night", DATES[0])
    other = write(tmp_path, "other")
    for _ in ("on the desk", "on the board alone"):
        with pytest.raises(
            CantBeWanted, match=rf"^shop@{DATES[0]} is wanted already, with the recipe {recipe}; change"
        ):
            run("jobs", "backfill", other, "--from", DATES[0], "--to", DATES[1])
        Desk(config.desk).forget("shop", [DATES[0]])
    assert wanted(config) == []
    (tmp_path / "link.yaml").symlink_to(recipe)
    assert run("submit", tmp_path / "link.yaml", "--night", DATES[0]).exit_code == 0
    assert run("submit", other, "--night", DATES[1]).exit_code == 0  # the same store and registry: one model


def test_a_second_recipe_of_a_models_name_with_another_store_is_refused_by_both_names(
    config, board, recipe, run, tmp_path
):
    run("submit", recipe, "--night", DATES[0])
    other = write(tmp_path, "other", store="elsewhere")
    with pytest.raises(
        CantBeWanted, match=rf"^{other}: name: 'shop' is the model of {recipe} too.*another store or regis"
    ):
        run("submit", other, "--night", DATES[1])
    assert wanted(config) == [f"shop@{DATES[0]}"] and not (tmp_path / "elsewhere").exists()
    run("jobs", "cancel", f"shop@{DATES[0]}")
    assert run("submit", other, "--night", DATES[1]).exit_code == 0


def test_a_second_recipe_is_refused_by_the_desk_though_redis_is_away(config, recipe, run, tmp_path):
    run("submit", recipe, "--night", DATES[0])
    away = f"redis://127.0.0.1:{free_port()}/1"
    with pytest.raises(CantBeWanted, match=r"is the model of .*shop.yaml too"):
        run("submit", write(tmp_path, "other", store="elsewhere"), "--night", DATES[1], state=away)
    with pytest.raises(CantBeWanted, match=rf"^shop@{DATES[0]} is wanted already, with the recipe {recipe}"):
        run("submit", write(tmp_path, "third"), "--night", DATES[0], state=away)
    assert wanted(config) == [f"shop@{DATES[0]}"]


def test_a_second_recipe_of_what_the_schedule_wants_is_refused(config, board, recipe, run, tmp_path):
    schedule = (Scheduled(recipe=recipe, first=dt.date.fromisoformat(DATES[1])),)
    with pytest.raises(CantBeWanted, match=r"is the model of .*shop.yaml too"):
        run("submit", write(tmp_path, "other", store="elsewhere"), "--night", DATES[0], models=schedule)
    same = write(tmp_path, "same")
    for date in DATES[1:]:
        with pytest.raises(CantBeWanted, match=rf"^shop@{date} is wanted already, with the recipe {recipe}"):
            run("submit", same, "--night", date, models=schedule)
    assert wanted(config) == [] == board.all()
    assert run("submit", same, "--night", DATES[0], models=schedule).exit_code == 0
    assert run("submit", recipe, "--night", DATES[1], models=schedule).exit_code == 0


def test_a_recipe_whose_store_was_changed_is_refused_until_what_is_there_is_moved(config, board, recipe, run, tmp_path):
    run("submit", recipe, "--night", DATES[0])
    freeze(config, tmp_path, DATES[0])
    publish(tmp_path, DATES[0])
    run("jobs", "reconcile")
    write(tmp_path, "shop", store="moved")
    with pytest.raises(
        CantBeWanted,
        match=rf"^{recipe}: store or registry is another than that of shop@{DATES[0]}.*: store {tmp_path}/st",
    ):
        run("submit", recipe, "--night", DATES[1])
    assert wanted(config) == [f"shop@{DATES[0]}"]
    (tmp_path / "store").rename(tmp_path / "moved")
    assert run("submit", recipe, "--night", DATES[1]).exit_code == 0
    assert run("jobs", "reconcile").stdout == "nothing to start\n"
    assert {n.run: n.phase for n in board.all()} == {f"shop@{DATES[0]}": "published", f"shop@{DATES[1]}": "queued"}


def test_a_store_that_a_dead_night_could_not_use_may_be_changed(config, board, recipe, run, tmp_path):
    run("submit", recipe, "--night", DATES[0])
    freeze(config, tmp_path, DATES[0])
    write_whole(Desk(config.desk).night_folder("shop", DATES[0]) / "dead.json", "{}")
    write(tmp_path, "shop", store="moved")
    assert run("submit", recipe, "--night", DATES[1]).exit_code == 0


def test_the_place_of_a_cancelled_night_binds_nobody(config, board, recipe, run, tmp_path):
    run("submit", recipe, "--night", DATES[0])
    freeze(config, tmp_path, DATES[0])
    run("jobs", "cancel", f"shop@{DATES[0]}")
    write(tmp_path, "shop", store="moved")
    schedule = (Scheduled(recipe=recipe, first=dt.date.fromisoformat(DATES[0])),)
    assert run("submit", recipe, "--night", DATES[1], models=schedule).exit_code == 0


def test_a_night_that_is_submitted_makes_no_registry(recipe, run, tmp_path):
    run("submit", recipe, "--night", DATES[0])
    assert not (tmp_path / "store").exists()


def test_all_dead_nights_of_a_model_are_retried_at_once(config, board, run):
    for date, phase in zip(DATES, ("dead", "cancelled", "dead"), strict=True):
        night = board.want("shop", date, "r.yaml")
        board.change(night.run, lambda n, now, phase=phase: n.moved(now, phase=phase, waited=9.0))
        write_whole(Desk(config.desk).night_folder("shop", date) / f"{phase}.json", "{}")
    assert run("jobs", "retry", "shop").exit_code == 0
    assert [(n.phase, n.waited) for n in board.all()] == [("queued", 0.0), ("cancelled", 9.0), ("waiting", 0.0)]
    assert not list(config.desk.rglob("dead.json"))
    with pytest.raises(NotPossible, match=r"^shop: no night of that model is dead; see `recsys-kd jobs status`"):
        run("jobs", "retry", "shop")


def test_a_night_that_is_over_already_is_told(config, board, recipe, run, tmp_path):
    publish(tmp_path, DATES[0])
    night = ("submit", recipe, "--night", DATES[0])
    assert run(*night).stdout == f"published already: shop@{DATES[0]}  published  live\n"
    assert json.loads(run(*night, "--json").stdout) == {
        "run": f"shop@{DATES[0]}", "phase": "published", "outcome": "live"
    }  # fmt: skip
    told = run("jobs", "backfill", recipe, "--from", DATES[0], "--to", DATES[2]).stdout
    assert told == "3 nights are wanted, of them already 1 published; next: recsys-kd jobs status\n"
    run("jobs", "cancel", f"shop@{DATES[1]}")
    assert run("submit", recipe, "--night", DATES[1]).stdout.startswith(
        f"cancelled already: shop@{DATES[1]}  cancelled"
    )


def test_days_in_the_wrong_order_are_told_in_a_whole_sentence(recipe):
    root = typer.Typer()
    extend(root)
    arguments = ["jobs", "backfill", str(recipe), "--from", DATES[2], "--to", DATES[0]]
    with pytest.raises(typer.BadParameter, match=rf"--to {DATES[0]} is before --from {DATES[2]}\.$"):
        root(arguments, standalone_mode=False)  # as `recsys-kd` does, which tells it


def test_a_night_or_model_that_nobody_knows_is_no_empty_answer(board, recipe, run):
    run("submit", recipe, "--night", DATES[0])
    for more in ((), ("--json",)):
        with pytest.raises(NotPossible, match=r"^nosuch: no night of that name is known; see `recsys-kd jobs status`"):
            run("jobs", "status", "nosuch", *more)
    assert run("jobs", "status", "shop").stdout == f"shop@{DATES[0]}  queued  prepare, attempt 0\n"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"phase": "published", "outcome": "live"}, 0), ({"phase": "published", "outcome": "late"}, 0),
     ({"phase": "published", "outcome": "held"}, 1), ({"phase": "dead"}, 1), ({"phase": "cancelled"}, 1)],
)  # fmt: skip
def test_a_night_that_is_followed_ends_with_0_where_it_passed(board, run, changes, code):
    night = board.want("shop", DATES[0], "r.yaml")
    board.change(night.run, lambda n, now: n.moved(now, **changes))
    assert run("jobs", "status", night.run, "--follow").exit_code == code
    assert run("jobs", "status", night.run).exit_code == 0


def test_a_night_that_was_held_back_says_why(config, board, run, tmp_path):
    night = board.want("shop", DATES[0], "r.yaml")
    checks = [
        {"sentence": "auc is fine", "passed": True, "gates": True},
        {"sentence": "ECE 0.2 is above 0.02", "passed": False, "gates": True},
        {"sentence": "distillation does not pay", "passed": False, "gates": False},
    ]
    result = {"passed": False, "reasons": [c["sentence"] for c in checks], "report": "/s/report.html"}
    write_whole(
        Desk(config.desk).night_folder("shop", DATES[0]) / "result.json",
        json.dumps(result | {"path": "/s/a", "verdict": {"checks": checks}}),
    )
    why = Desk(config.desk).why("shop", DATES[0], "held")
    board.change(night.run, lambda n, now: machine.published(n, now, "held", why))
    assert run("jobs", "status").stdout == f"shop@{DATES[0]}  published  held  ECE 0.2 is above 0.02\n"
    shown = json.loads(run("jobs", "show", night.run).stdout)
    assert shown["verdict"] == result | {"held_by": ["ECE 0.2 is above 0.02"]}
    assert Desk(config.desk).why("shop", DATES[0], "live") == ""


def test_a_night_is_not_retried_where_the_desk_can_not_be_written(config, board, run):
    night = board.want("shop", DATES[0], "r.yaml")
    board.change(night.run, lambda n, now: n.moved(now, phase="dead"))
    (Desk(config.desk).night_folder("shop", DATES[0]) / "recipe.yaml").mkdir(parents=True)  # can't be unlinked
    with pytest.raises(DeskUnwritable, match=r"recipe.yaml: .*; make it writable, then retry again"):
        run("jobs", "retry", night.run)
    assert board.get(night.run).phase == "dead"


def test_reconciling_ends_with_3_where_a_model_is_out_of_reach(board, recipe, run, tmp_path):
    run("submit", recipe, "--night", DATES[0])
    SqliteRegistry(tmp_path / "store" / "registry.sqlite")
    (tmp_path / "store" / "shop" / "registry.json").mkdir(parents=True)  # can't be read
    with pytest.raises(Unreconciled, match=r"^not reconciled, and nothing of it started: shop: .*registry.json: ") as e:
        run("jobs", "reconcile")
    assert e.value.exit_code == 3
