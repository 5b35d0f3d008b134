"""A registry that was emptied is restored before anything is written into it, whenever that happens."""

import json

import pytest
import yaml

from jobs import reconcile
from jobs.desk import RECIPE, RESULT, Desk, Wanted
from jobs.places import RegistryLost
from jobs.stages import perform
from recsys_kd.flow.conformance_models import write_model
from recsys_kd.registry.protocol import StalePublisher
from recsys_kd.registry.store import write_copy
from recsys_kd.registry.where import open_registry
from recsys_kd.runtime.ranker import Ranker
from tests.registry.test_registry import add, verdict

FIRST, SECOND = "2026-01-08", "2026-01-09"
RUN = f"shop@{SECOND}"


@pytest.fixture
def config(on_redis):
    return on_redis


@pytest.fixture
def registry(board, config, tmp_path):
    """Return a registry with one night published, and its copy in the store."""
    registry = open_registry(config.registry, tmp_path / "store")
    (tmp_path / "store" / "shop" / ("a" * 64)).mkdir(parents=True)
    version, claim = add(registry, "a" * 64), registry.claim("shop", FIRST)
    registry.publish("shop", version.number, verdict("a" * 64), 0, claim, "ann")
    write_copy(registry, tmp_path / "store", "shop")
    return registry


@pytest.fixture
def trained(registry, board, config, tmp_path):
    """Leave a second night that is to be published, with its artifact; return its result's path."""
    folder = Desk(config.desk).night_folder("shop", SECOND)
    folder.mkdir(parents=True)
    plain = {"name": "shop", "data": {"path": "log"}, "store": str(tmp_path / "store")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain))
    (folder / RECIPE).write_text(yaml.safe_dump(plain))
    path = write_model(tmp_path / "store", 1, "shop")
    result = {"artifact": path.name, "path": str(path), "verdict": verdict(path.name).to_json(), "seen": 1}
    (folder / RESULT).write_text(json.dumps(result))
    for date in (FIRST, SECOND):
        Desk(config.desk).want(Wanted("shop", date, str(tmp_path / "recipe.yaml")))
    board.want("shop", SECOND, str(tmp_path / "recipe.yaml"))
    board.change(RUN, lambda night, now: night.moved(now, phase="queued", stage="publish", attempts=1))
    return folder / RESULT


def restored(config, registry):
    """Let the reconciler look; return the nights that the registry knows then."""
    reconcile.reconcile(config, lambda night: None)
    return sorted(registry.state("shop").nights)


def again(config, board):
    board.change(RUN, lambda night, now: night.moved(now, phase="queued", stage="publish"))
    return perform(config, RUN, "publish")


def test_in_an_emptied_registry_nothing_is_claimed(config, board, registry, trained, redis_server):
    redis_server.client(0).flushdb()
    with pytest.raises(RegistryLost, match=r"^the registry has lost shop: .*registry.json names versions and"):
        perform(config, RUN, "publish")
    night, state = board.get(RUN), registry.state("shop")
    assert (night.phase, night.attempts) == ("waiting", 0) and (state.tokens, state.versions) == ({}, {})
    assert restored(config, registry) == [FIRST]
    assert again(config, board).phase == "published" and sorted(registry.state("shop").nights) == [FIRST, SECOND]


def test_a_registry_that_is_emptied_while_a_night_is_published_is_restored_all_the_same(
    config, board, registry, trained, redis_server, monkeypatch
):
    opened = Ranker.open

    def emptied(path):
        redis_server.client(0).flushdb()
        return opened(path)

    with monkeypatch.context() as patched:
        patched.setattr(Ranker, "open", emptied)
        with pytest.raises(StalePublisher, match="is void, the latest is None"):
            perform(config, RUN, "publish")
    assert registry.state("shop").versions == {} and trained.exists()
    assert restored(config, registry) == [FIRST]
    assert again(config, board).phase == "published"
    state = registry.state("shop")
    assert sorted(state.nights) == [FIRST, SECOND] and len(state.versions) == 2
