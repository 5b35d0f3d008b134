"""What the server beside the workers becomes."""

import os

import pytest
import yaml

from jobs import server
from jobs.config import JobsConfig
from jobs.desk import Desk, Wanted
from recsys_kd.registry.where import open_registry
from tests.redis_server import RedisServer
from tests.registry.test_registry import add, verdict

pytestmark = pytest.mark.timeout(60)  # it waits for ever where nothing is served


class Became(Exception):
    """The server's process was replaced."""


@pytest.fixture
def become(monkeypatch, tmp_path):
    """Return a function that runs the server up to where another program takes its process over; returns that."""
    monkeypatch.chdir(tmp_path)

    def replace(path, arguments, environment=None):
        raise Became(arguments, environment)

    for name in ("execv", "execve"):
        monkeypatch.setattr(os, name, replace)

    def run(config):
        monkeypatch.setattr(server, "from_environment", lambda: config)
        monkeypatch.setattr("sys.argv", ["jobs.server", str(tmp_path / "server")])
        with pytest.raises(Became) as became:
            server.main()
        return became.value.args

    return run


def live(config, folder, model, store="store"):
    """Let a model have a champion in the configuration's registry, or that of its store."""
    path = folder / f"{model}.yaml"
    path.write_text(yaml.safe_dump({"name": model, "data": {"path": "log"}, "store": store}))
    Desk(config.desk).want(Wanted(model, "2026-01-05", str(path)))
    opened = open_registry(config.registry, folder / store)
    version = add(opened, f"artifact of {model}", model)
    opened.promote(model, version.number, verdict(version.digest), 0, "ann", "night")


@pytest.fixture
def config(tmp_path):
    return JobsConfig(desk=tmp_path / "desk", server_port=8090, server_grpc_port=8091)


def test_a_registrys_password_is_no_argument_which_everybody_on_the_machine_may_see(config, tmp_path, become):
    (tmp_path / "redis").mkdir()
    redis = RedisServer(tmp_path / "redis", "--requirepass", "hush")
    try:
        url = redis.url(0, ":hush@")
        config = config.model_copy(update={"registry": url})
        live(config, tmp_path, "shop")
        arguments, environment = become(config)
    finally:
        redis.stop()
    assert arguments[3:] == ["serve", "--model", "shop", "--port", "8090", "--grpc-port", "8091"]
    assert environment == os.environ | {"RECSYS_KD_REGISTRY": url}


def test_models_of_other_registries_are_named_since_they_are_not_served(config, tmp_path, become, caplog):
    for model, store in (("shop", "store"), ("toys", "store"), ("books", "other")):
        live(config, tmp_path, model, store)
    arguments, environment = become(config)
    assert arguments[3:6] == ["serve", "--model", "books"] and "shop" not in arguments  # by name, books is the first
    assert environment["RECSYS_KD_REGISTRY"] == str(tmp_path / "other" / "registry.sqlite")
    assert [r.getMessage() for r in caplog.records if r.name == "recsys_kd.jobs"] == [
        f"{model} is not served here: it is published in {tmp_path}/store/registry.sqlite, this server follows "
        f"{tmp_path}/other/registry.sqlite; give all models one `registry` in the jobs configuration, or serve that "
        "one by `recsys-kd serve`"
        for model in ("shop", "toys")
    ]


def test_with_one_registry_for_all_nothing_is_left_out(config, tmp_path, become, caplog):
    config = config.model_copy(update={"registry": str(tmp_path / "all.sqlite")})
    for model in ("shop", "toys"):
        live(config, tmp_path, model, store=model)
    arguments, _ = become(config)
    assert arguments[4:8] == ["--model", "shop", "--model", "toys"] and caplog.records == []
