"""What a worker makes of what the night's process left."""

import json
import os
import time

import pytest
import yaml

from jobs import machine
from jobs.board import Board, BoardUnreachable
from jobs.config import JobsConfig, Limits
from jobs.desk import DEAD, RECIPE, RESULT, Desk, OtherModel
from jobs.stages import perform
from jobs.steps import OutsideAway, StageFailed, _said
from jobs.supervise import Ended
from recsys_kd.settings import BadRecipe
from tests.chaos.faults import unmounted
from tests.registry.test_registry import verdict


def test_a_process_that_could_not_begin_is_told_from_a_model_that_was_held_back(tmp_path):
    part = tmp_path / "result"
    part.write_text("")
    with pytest.raises(StageFailed, match=r"ended with exit code 1; its last words: ModuleNotFoundError: No module"):
        _said(part, Ended(1, "ModuleNotFoundError: No module named 'typer'"))
    part.write_text('{"passed": false}')
    assert _said(part, Ended(1, "")) == {"passed": False}


def test_a_night_whose_store_goes_away_waits_for_it_though_its_process_ends_as_for_bad_configuration(
    shop, board, redis_server, tmp_path
):
    given = yaml.safe_load(shop.recipe.read_text())
    data = given["data"] | {key: str(shop.folder / given["data"][key]) for key in ("path", "catalogue")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given | {"data": data, "store": str(tmp_path / "store")}))
    config = JobsConfig(
        state=redis_server.url(1), registry=redis_server.url(0), desk=tmp_path / "desk", limits=Limits(backoff=0)
    )
    run = board.want(given["name"], "2026-01-09", str(tmp_path / "recipe.yaml")).run
    board.change(run, lambda night, now: machine.queue(night, now, 100))
    perform(config, run, "prepare")
    (tmp_path / "store").write_text("")  # nobody can make it anew
    with pytest.raises(OutsideAway, match=rf"^{config.desk}/.*/recipe.yaml: store: .*store can't be written"):
        perform(config, run, "train")
    night = board.get(run)
    assert night.phase == "waiting" and night.attempts == 0 and night.waited > 0


@pytest.fixture
def config(on_redis):
    return on_redis


@pytest.fixture
def trained(config, board, tmp_path):
    """Return the folder of a night that was trained; the artifact that it names is lost."""
    folder = Desk(config.desk).night_folder("shop", "2026-01-09")
    folder.mkdir(parents=True)
    (tmp_path / "store" / "shop").mkdir(parents=True)
    plain = {"name": "shop", "data": {"path": "log"}, "store": str(tmp_path / "store")}
    (folder / RECIPE).write_text(yaml.safe_dump(plain))
    path, judged = tmp_path / "store" / "shop" / ("a" * 64), verdict("a" * 64).to_json()
    result = {"artifact": path.name, "path": str(path), "verdict": judged, "seen": 0}
    (folder / RESULT).write_text(json.dumps(result))
    run = board.want("shop", "2026-01-09", str(tmp_path / "recipe.yaml")).run
    board.change(run, lambda night, now: night.moved(now, phase="queued", stage="publish", attempts=1))
    return folder


@pytest.mark.parametrize("left", ["nothing", "file", "folder"])
def test_a_store_that_is_away_when_a_night_is_published_costs_neither_result_nor_attempt(
    config, board, trained, tmp_path, left
):
    store = tmp_path / "store"
    with (
        unmounted(store, left),
        pytest.raises(OutsideAway, match=rf"^store: {store}/shop is no longer there; is its share"),
    ):
        perform(config, "shop@2026-01-09", "publish")
    night = board.get("shop@2026-01-09")
    assert (night.phase, night.attempts) == ("waiting", 0) and night.waited > 0 and (trained / RESULT).exists()


def test_an_artifact_that_is_lost_from_a_store_that_is_there_is_made_again_and_an_attempt_counted(
    config, board, trained
):
    with pytest.raises(StageFailed, match=r"refused by check 'exists'.*the night is judged again"):
        perform(config, "shop@2026-01-09", "publish")
    night = board.get("shop@2026-01-09")
    assert (night.phase, night.attempts) == ("waiting", 1) and not (trained / RESULT).exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"path": 1}', '{"artifact": "a", "path": "p", "verdict": {}}'])
def test_a_result_that_is_broken_is_made_again_and_an_attempt_counted(config, board, trained, text):
    (trained / RESULT).write_text(text)
    with pytest.raises(StageFailed, match=rf"^{trained / RESULT} can't be read: .* \(the night is judged again\)$"):
        perform(config, "shop@2026-01-09", "publish")
    night = board.get("shop@2026-01-09")
    assert (night.phase, night.attempts) == ("waiting", 1) and not (trained / RESULT).exists()


def test_a_recipe_that_has_another_name_by_now_makes_no_model_of_the_night(config, board, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: other\ndata: {path: log}\nstore: store\n")
    run = board.want("shop", "2026-01-09", str(path)).run
    board.change(run, lambda night, now: machine.queue(night, now, 100))
    with pytest.raises(OtherModel):
        perform(config, run, "prepare")
    night = board.get(run)
    assert night.phase == "dead" and night.reason == (
        f"{path}: name: 'other', though {run} is a night of 'shop'; give the recipe that name again, then "
        f"`recsys-kd jobs retry {run}`, or submit it as 'other' and cancel this night"
    )


def test_a_night_that_is_prepared_slowly_stays_its_workers(shop, config, board, tmp_path, monkeypatch):
    given = yaml.safe_load(shop.recipe.read_text())
    run = board.want(given["name"], "2026-01-09", str(shop.recipe)).run
    board.change(run, lambda night, now: machine.queue(night, now, 100))
    config = config.model_copy(update={"limits": Limits(lease=6)})  # renewed every 1.5 s
    link, until, left = os.link, [], []

    def slow(source, target):
        time.sleep(0.7)
        until.append(board.get(run).lease_until)
        left.append(until[-1] - board.now())
        link(source, target)

    monkeypatch.setattr("os.link", slow)
    assert perform(config, run, "prepare").stage == "train"
    assert len(left) == 5 and min(left) > 0 and len(set(until)) > 1


@pytest.fixture
def no_talk(monkeypatch):
    """Let Redis be lost for what a stage tells after its end."""

    def lost(*_, **__):
        raise BoardUnreachable("redis is gone")

    for name in ("say", "count"):
        monkeypatch.setattr(Board, name, lost)


@pytest.mark.usefixtures("no_talk")
def test_a_dead_night_has_its_letter_though_redis_is_lost_just_then(config, board, tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: shop\nseeds: 1\n")
    run = board.want("shop", "2026-01-09", str(tmp_path / "recipe.yaml")).run
    board.change(run, lambda night, now: machine.queue(night, now, 100))
    with pytest.raises(BadRecipe):
        perform(config, run, "prepare")
    letter = json.loads((Desk(config.desk).night_folder("shop", "2026-01-09") / DEAD).read_text())
    assert letter["night"]["phase"] == "dead" and "seeds" in letter["night"]["reason"]


@pytest.mark.usefixtures("no_talk", "trained")
def test_a_stage_that_is_done_goes_on_though_it_could_not_be_counted(config, board):
    run = "shop@2026-01-09"
    board.change(run, lambda night, now: night.moved(now, stage="train"))
    after = perform(config, run, "train")  # has its result
    assert (after.phase, after.stage) == ("queued", "publish")
