"""What a worker makes of what the night's process left."""

import pytest
import yaml

from jobs import machine
from jobs.config import JobsConfig, Limits
from jobs.stages import OutsideAway, StageFailed, _said, perform
from jobs.supervise import Ended


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
    with pytest.raises(OutsideAway, match=r"^store: .*store can't be written"):
        perform(config, run, "train")
    night = board.get(run)
    assert night.phase == "waiting" and night.attempts == 0 and night.waited > 0
