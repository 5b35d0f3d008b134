"""What the server beside the workers serves, and that it serves later models too."""

import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from jobs import serving
from jobs.config import JobsConfig
from jobs.desk import Desk, Wanted
from jobs.live import Kept, Live, keep, kept, left_out, published
from jobs.server import Keeper
from recsys_kd.flow.conformance_models import promote, write_model
from recsys_kd.registry.where import open_registry
from tests.paths import PATHS
from tests.redis_server import RedisServer, free_port
from tests.registry.test_registry import add, verdict

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)  # seconds on an idle machine, minutes on a busy one


def want(config, folder, model, store="store"):
    """Let a model be submitted, by a recipe with a store."""
    path = folder / f"{model}.yaml"
    path.write_text(yaml.safe_dump({"name": model, "data": {"path": "log"}, "store": store}))
    Desk(config.desk).want(Wanted(model, "2026-01-05", str(path)))


def live(config, folder, model, store="store"):
    """Let a model have a champion in the configuration's registry, or that of its store."""
    want(config, folder, model, store)
    opened = open_registry(config.registry, folder / store)
    version = add(opened, f"artifact of {model}", model)
    opened.promote(model, version.number, verdict(version.digest), 0, "ann", "night")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return JobsConfig(desk=tmp_path / "desk", server_port=8090, server_grpc_port=8091)


def test_a_registrys_password_is_no_argument_which_everybody_on_the_machine_may_see(config, tmp_path):
    (tmp_path / "redis").mkdir()
    redis = RedisServer(tmp_path / "redis", "--requirepass", "hush")
    try:
        url = redis.url(0, ":hush@")
        config = config.model_copy(update={"registry": url})
        live(config, tmp_path, "shop")
        found = published(config, None)
    finally:
        redis.stop()
    arguments = serving.command(config, found.models)
    assert arguments[3:] == ["serve", "--model", "shop", "--port", "8090", "--grpc-port", "8091"]
    told = serving.environment(found.registry, "token")
    assert told == os.environ | {"RECSYS_KD_REGISTRY": url, "RECSYS_KD_TOKEN": "token"}
    keep(tmp_path, found)
    assert "hush" not in (tmp_path / "served.json").read_text()


def test_models_of_other_registries_are_named_since_they_are_not_served(config, tmp_path):
    for model, store in (("shop", "store"), ("toys", "store"), ("books", "other")):
        live(config, tmp_path, model, store)
    found = published(config, None)
    assert found == Live(str(tmp_path / "other" / "registry.sqlite"), ("books",))  # by name, books is the first
    assert left_out(config, found.registry) == [
        f"{model} is not served here: it is published in {tmp_path}/store/registry.sqlite, this server follows "
        f"{tmp_path}/other/registry.sqlite; give all models one `registry` in the jobs configuration, or serve that "
        "one by `recsys-kd serve`"
        for model in ("shop", "toys")
    ]


def test_with_one_registry_for_all_nothing_is_left_out(config, tmp_path):
    config = config.model_copy(update={"registry": str(tmp_path / "all.sqlite")})
    for model in ("shop", "toys"):
        live(config, tmp_path, model, store=model)
    found = published(config, None)
    assert found.models == ("shop", "toys") and left_out(config, found.registry) == []


def test_what_was_served_before_is_served_again_though_another_model_comes_first_by_now_or_it_is_away(config, tmp_path):
    live(config, tmp_path, "shop")
    first = published(config, None)
    keep(tmp_path, first)
    live(config, tmp_path, "books", "other")
    assert published(config, None).models == ("books",) and published(config, kept(tmp_path)) == first
    (tmp_path / "store" / "registry.sqlite").unlink()
    assert published(config, kept(tmp_path)) == first
    want(config, tmp_path, "shop", "other")
    assert published(config, kept(tmp_path)).models == ("books",)  # no recipe names the old one


def test_what_is_served_is_written_down_where_it_is_news_and_a_full_disk_is_told(config, tmp_path, caplog):
    found = Live(str(tmp_path / "registry.sqlite"), ("shop",))
    keep(tmp_path, found)
    before = (tmp_path / "served.json").stat().st_ino
    keep(tmp_path, found)
    assert (tmp_path / "served.json").stat().st_ino == before
    (tmp_path / "file").write_text("")
    keeper = Keeper(config, tmp_path / "file" / "server")  # no folder can be made there
    keeper._keep(found)
    assert "until then a new start does not know what was served last" in caplog.text


def test_who_speaks_no_http_is_no_server(config, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = config.model_copy(update={"server_port": listener.getsockname()[1]})
        stranger = threading.Thread(target=lambda: (c := listener.accept()[0]).sendall(b"+OK\r\n") or c.close())
        stranger.start()
        server = serving.Serving.__new__(serving.Serving)  # no process: only who answers at its address
        server.address = f"http://127.0.0.1:{asked.server_port}"
        assert not server.answers()
        stranger.join()


class Process:
    """`python -m jobs.server` on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        plain = {
            "desk": "desk", "registry": str(folder / "registry.sqlite"), "server_port": self.port,
            "server_grpc_port": free_port(), "limits": {"reconcile": 0.5},
        }  # fmt: skip
        (folder / "jobs.yaml").write_text(yaml.safe_dump(plain))
        self.config = JobsConfig(desk=folder / "desk", registry=plain["registry"])
        self.start()

    def start(self):
        paths = os.pathsep.join([str(ROOT), *PATHS])
        told = os.environ | {"RECSYS_KD_JOBS": str(self.folder / "jobs.yaml"), "PYTHONPATH": paths}
        with (self.folder / "server.log").open("a") as log:
            command = [sys.executable, "-m", "jobs.server", str(self.folder / "server")]
            self.process = psutil.Popen(command, env=told, stdout=log, stderr=log)

    def publish(self, model, broken=False):
        want(self.config, self.folder, model)
        path = write_model(self.folder / "store", 0, model)
        if broken:
            for file in path.iterdir():
                file.chmod(0o644)
                file.write_bytes(file.read_bytes()[:-1])
        promote(open_registry(self.config.registry, self.folder), path, model)

    def served(self, model):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/models/{model}/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def log(self):
        return (self.folder / "server.log").read_text()

    def wait(self, condition):
        deadline = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log()
            time.sleep(0.1)  # a server tells nobody what it serves

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=120)


@pytest.fixture
def process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Process(tmp_path)
    yield made
    if made.process.poll() is None:
        made.end()


def test_a_model_that_is_published_later_is_served_too_by_the_same_process_and_after_a_restart(process):
    process.publish("shop")
    process.wait(lambda: process.served("shop"))
    (first,) = process.process.children()
    process.publish("toys")
    process.wait(lambda: process.served("toys"))
    assert process.process.children() == [first] and process.served("shop")
    assert not any("TOKEN" in a or "Bearer" in a for a in first.cmdline())
    process.wait(lambda: kept(process.folder / "server") == Kept(process.config.registry, ("shop", "toys")))
    assert process.end() == 0 and not first.is_running()
    (process.folder / "registry.sqlite").unlink()  # away: what was served is served from this host's own record
    process.start()
    process.wait(lambda: process.served("shop") and process.served("toys"))


def test_a_model_that_can_not_be_loaded_is_named_and_holds_up_no_other(process):
    process.publish("broken", broken=True)
    process.wait(lambda: "broken" in process.log())
    process.publish("shop")
    process.wait(lambda: process.served("shop"))
    process.wait(lambda: "broken is not served yet: " in process.log())
    assert process.end() == 0
    lines = [json.loads(line) for line in process.log().splitlines() if line.startswith("{")]
    assert [x["level"] for x in lines if x.get("message", "").startswith("broken is not")] == ["warning"]


def test_a_registry_that_no_recipe_names_any_more_is_left(process):
    plain = yaml.safe_load((process.folder / "jobs.yaml").read_text())
    process.publish("shop")
    process.wait(lambda: process.served("shop"))
    del plain["registry"]  # from now on each store has its own
    assert process.end() == 0
    (process.folder / "jobs.yaml").write_text(yaml.safe_dump(plain))
    process.config = JobsConfig(desk=process.folder / "desk")
    registry = str(process.folder / "store" / "registry.sqlite")
    promote(open_registry(registry, process.folder), write_model(process.folder / "store", 1, "shop"), "shop")
    process.start()
    process.wait(lambda: process.served("shop"))
    process.wait(lambda: kept(process.folder / "server") == Kept(registry, ("shop",)))
    want(process.config, process.folder, "shop", "other")  # while it runs
    other = str(process.folder / "other" / "registry.sqlite")
    promote(open_registry(other, process.folder), write_model(process.folder / "other", 2, "shop"), "shop")
    assert process.process.wait(timeout=240) != 0  # for whatever supervises it to start it again
    process.start()
    process.wait(lambda: kept(process.folder / "server") == Kept(other, ("shop",)) and process.served("shop"))


def test_it_takes_its_server_with_it_however_it_ends(process):
    process.publish("shop")
    process.wait(lambda: process.served("shop"))
    (server,) = process.process.children()
    process.end(signal.SIGKILL)
    psutil.wait_procs([server], timeout=60)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
