"""Configurations that lose work are refused, against real Redis servers."""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import yaml

from jobs.checks import doctor, examine, examine_machine
from jobs.config import JobsConfig, Limits, Scheduled, load
from recsys_kd.flow.doctor import exit_code
from recsys_kd.settings import BadRecipe
from tests.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)  # seconds on an idle machine, minutes on a busy one


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory):
    """Return a server as nobody should run it."""
    server = RedisServer(
        tmp_path_factory.mktemp("redis"), "--appendonly", "no", "--maxmemory-policy", "allkeys-lru"
    )  # fmt: skip
    yield server
    server.stop()


def levels(config):
    return {(f.check, f.level) for f in examine(config)}


def test_a_sound_configuration_is_ok(redis_server, tmp_path):
    config = JobsConfig(broker=redis_server.url(0), state=redis_server.url(1), desk=tmp_path, production=True)
    assert {level for _, level in levels(config)} == {"ok"}


def test_a_redis_that_forgets_or_evicts_is_refused_in_production_and_warned_of_elsewhere(forgetful, tmp_path):
    for production, level in ((True, "error"), (False, "warning")):
        config = JobsConfig(
            broker=forgetful.url(0), state=forgetful.url(1), desk=tmp_path, production=production
        )  # fmt: skip
        found = [f for f in examine(config) if f.check == "jobs.broker"]
        assert [f.level for f in found] == [level, level]
        assert "appendonly yes" in found[0].detail and "maxmemory-policy noeviction" in found[1].detail


def test_one_database_for_two_purposes_is_refused(redis_server, tmp_path):
    config = JobsConfig(
        broker=redis_server.url(0), state=redis_server.url(1), registry=redis_server.url(0), desk=tmp_path
    )  # fmt: skip
    assert ("jobs.databases", "error") in levels(config)
    other_name = redis_server.url(0).replace("127.0.0.1", "localhost")
    assert ("jobs.databases", "error") in levels(config.model_copy(update={"registry": other_name}))
    assert ("jobs.databases", "ok") in levels(config.model_copy(update={"registry": redis_server.url(2)}))


def test_one_database_is_known_by_any_of_its_addresses(tmp_path):
    socket = tmp_path / "redis.sock"
    server = RedisServer(tmp_path, "--unixsocket", str(socket))
    try:
        config = JobsConfig(broker=server.url(0), state=f"unix://{socket}?db=1", desk=tmp_path)
        assert ("jobs.databases", "ok") in levels(config)
        for state in (f"unix://{socket}", f"unix://{socket}?db=0", server.url(1, query="?db=0")):
            assert ("jobs.databases", "error") in levels(config.model_copy(update={"state": state}))
    finally:
        server.stop()
    for away in ("unix:///nowhere/a.sock", server.url(0)):
        config = JobsConfig(broker=server.url(1), state=away, registry=away, desk=tmp_path)
        assert ("jobs.databases", "error") in levels(config)


def test_time_limits_must_lie_below_the_visibility_timeout():
    with pytest.raises(ValueError, match=r"limits.stage 100 s \+ grace 60 s is not below limits.visibility 150 s"):
        JobsConfig(limits=Limits(stage=100, visibility=150))


def test_a_bad_configuration_names_file_and_key(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text("brokers: x\n")
    with pytest.raises(BadRecipe, match=r"jobs.yaml: brokers: unknown key"):
        load(path)


def test_doctor_says_nothing_where_nothing_is_configured_and_names_what_is_wrong(monkeypatch, tmp_path, forgetful):
    monkeypatch.delenv("RECSYS_KD_JOBS", raising=False)
    monkeypatch.delenv("RECSYS_KD_BROKER", raising=False)
    assert doctor() == []
    path = tmp_path / "jobs.yaml"
    path.write_text(yaml.safe_dump({"broker": forgetful.url(0), "state": forgetful.url(0), "production": True}))
    monkeypatch.setenv("RECSYS_KD_JOBS", str(path))
    assert {f.check for f in doctor() if f.level == "error"} == {"jobs.databases", "jobs.broker", "jobs.state"}


def run_doctor(tmp_path, plain):
    path = tmp_path / "jobs.yaml"
    path.write_text(yaml.safe_dump(plain))
    command = [sys.executable, "-m", "recsys_kd", "doctor", "--json", "--store", str(tmp_path)]
    environment = {**os.environ, "RECSYS_KD_JOBS": str(path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {f["check"]: (f["level"], f["detail"]) for f in json.loads(done.stdout)["findings"]}
    return {check: told for check, told in found.items() if check.startswith("jobs.")}


def ends_with(tmp_path, monkeypatch):
    """Return with what `doctor` would end of the application's findings alone: the machine may have others."""
    monkeypatch.setenv("RECSYS_KD_JOBS", str(tmp_path / "jobs.yaml"))
    return exit_code(doctor())


def test_doctor_ends_with_2_for_a_bad_configuration_whose_file_and_key_it_names(tmp_path, monkeypatch):
    level, detail = run_doctor(tmp_path, {"brokers": "x"})["jobs.config"]
    assert level == "error" and "jobs.yaml: brokers: unknown key" in detail and ends_with(tmp_path, monkeypatch) == 2


def test_doctor_names_scheduled_recipes_that_can_not_be_read_and_ports_that_are_given_twice(
    tmp_path, redis_server, monkeypatch
):
    plain = {"broker": redis_server.url(0), "state": redis_server.url(1), "flower_port": 7001, "metrics_port": 7001}
    plain["models"] = [{"recipe": "gone.yaml", "first": dt.date(2026, 1, 5)}]
    found = run_doctor(tmp_path, plain)
    assert found["jobs.ports"] == ("error", "flower_port and metrics_port are both 7001; give each its own")
    assert ends_with(tmp_path, monkeypatch) == 2
    level, detail = found["jobs.models"]
    assert level == "warning" and f"{tmp_path / 'gone.yaml'}" in detail and "no night of it is run until then" in detail
    recipe = {"name": "shop", "data": {"path": "log"}}
    (tmp_path / "gone.yaml").write_text(yaml.safe_dump(recipe))
    found = run_doctor(tmp_path, plain | {"metrics_port": 7002})
    assert found["jobs.models"] == ("ok", "1 scheduled") and ends_with(tmp_path, monkeypatch) == 0


def test_one_model_that_is_scheduled_in_two_places_is_an_error(tmp_path):
    models = []
    for name, store in (("a", "store"), ("b", "elsewhere"), ("c", "store")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": "shop", "data": {"path": "log"}, "store": store}))
        models.append(Scheduled(recipe=path, first=dt.date(2026, 1, 5)))
    (found,) = (f for f in examine_machine(JobsConfig(models=tuple(models))) if f.check == "jobs.models")
    assert (found.level, found.bad_input) == ("error", True)
    assert found.detail.startswith(f"{tmp_path}/a.yaml and {tmp_path}/b.yaml are both named 'shop', and have another")


def test_a_wrong_password_is_an_error_since_no_waiting_helps(tmp_path, redis_server):
    (tmp_path / "redis").mkdir()
    locked = RedisServer(tmp_path / "redis", "--requirepass", "hush")
    try:
        for login in (":wrong@", ""):
            config = JobsConfig(
                broker=redis_server.url(0), state=redis_server.url(1), registry=locked.url(0, login), desk=tmp_path
            )
            (found,) = (f for f in examine(config) if f.check == "jobs.registry")
            assert found.level == "error" and "mend user and password in the address of `registry`" in found.detail
            assert found.bad_input and "wrong" not in found.detail.partition("; mend")[0].replace("WRONGPASS", "")
        admin = redis.Redis(port=locked.port, password="hush")
        admin.acl_setuser("publisher", enabled=True, passwords=["+secret"], keys=["recsys_kd:*"], categories=["+@read"])
        publisher = config.model_copy(update={"registry": locked.url(0, "publisher:secret@")})
        (found,) = (f for f in examine(publisher) if f.check == "jobs.registry")
        assert found.level == "ok" and "may not ask" in found.detail  # README's rights, which suffice
    finally:
        locked.stop()


def test_a_worker_does_not_start_with_it_and_recsys_kd_doctor_prints_the_same(tmp_path, forgetful):
    path = tmp_path / "jobs.yaml"
    plain = {"broker": forgetful.url(0), "state": forgetful.url(1), "production": True}
    path.write_text(yaml.safe_dump(plain))
    environment = {**os.environ, "RECSYS_KD_JOBS": str(path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "celery", "-A", "jobs.app", "worker", "-Q", "heavy", "-c", "1"]
    worker = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )  # fmt: skip
    assert worker.returncode == 2 and "error: jobs.broker:" in worker.stderr and "appendonly yes" in worker.stderr
    said = [json.loads(line) for line in worker.stderr.splitlines()]
    assert {"error"} == {line["level"] for line in said if "jobs.broker" in line["message"]}
    command = [sys.executable, "-m", "recsys_kd", "doctor", "--json", "--store", str(tmp_path)]
    printed = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    found = {f["check"]: f["level"] for f in json.loads(printed.stdout)["findings"]}
    assert printed.returncode == 3 and found["jobs.broker"] == "error"
