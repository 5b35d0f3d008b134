"""What compose.yaml and `up` start is what the application is made of."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from jobs import keeper, local_redis, up
from jobs.app import HEAVY, LIGHT, app
from jobs.config import JobsConfig, load
from jobs.keeper import Supervisor
from tests.redis_server import free_port

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)  # seconds on an idle machine, minutes on a busy one


def test_compose_starts_what_up_starts_with_a_redis_that_loses_nothing(tmp_path):
    services = yaml.safe_load((ROOT / "jobs" / "deploy" / "compose.yaml").read_text())["services"]
    broker, registry = (f"redis://127.0.0.1:{free_port()}" for _ in range(2))
    told = JobsConfig(broker=f"{broker}/0", state=f"{broker}/1", registry=f"{registry}/0")
    assert set(services) == {*up.commands(told, tmp_path, beat=True), *local_redis.missing(told)}
    for name in ("redis", "registry"):
        assert "--appendonly yes" in services[name]["command"] and "noeviction" in services[name]["command"]
    for name in ("heavy", "light"):
        assert f"-Q {name} -c 1" in services[name]["command"] and services[name]["restart"] == "always"
    config = load(ROOT / "jobs" / "deploy" / "jobs.yaml")
    assert config.production and len({config.broker, config.state, config.registry}) == 3
    assert config.server_config.is_file()


def test_heavy_stages_go_to_the_heavy_queue_and_nothing_but_json_is_taken():
    assert app.conf.task_routes == {"recsys_kd.train": {"queue": HEAVY}} and app.conf.task_default_queue == LIGHT
    assert app.conf.accept_content == ["json"] == app.conf.result_accept_content
    assert app.conf.task_acks_late and app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1 and app.conf.worker_pool_start_method == "spawn"
    assert app.conf.task_time_limit < app.conf.broker_transport_options["visibility_timeout"]


def test_whatever_ends_is_started_again_and_all_is_stopped(tmp_path):
    supervisor = Supervisor({"sleeper": [sys.executable, "-c", "import time; time.sleep(600)"]}, tmp_path)
    thread = threading.Thread(target=supervisor.run)
    thread.start()

    def pid_after(old):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            process = supervisor.running.get("sleeper")
            if process is not None and process.pid != old:
                return process.pid
            time.sleep(0.02)
        raise TimeoutError

    first = pid_after(None)
    os.kill(first, signal.SIGKILL)
    second = pid_after(first)
    supervisor.stopping.set()
    thread.join()
    assert supervisor.restarts == 1 and supervisor.running["sleeper"].returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_what_can_not_be_started_is_tried_again_and_ends_nothing_else(tmp_path):
    supervisor = Supervisor({"late": [str(tmp_path / "late")]}, tmp_path)
    supervisor.look()
    assert "late can't be started: [Errno 2]" in (tmp_path / "late.log").read_text()
    (tmp_path / "late").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "late").chmod(0o755)
    supervisor.ended_at["late"] -= 2  # a second and more ago
    supervisor.look()
    assert supervisor.running["late"].poll() is None
    supervisor.stop()


def test_a_log_that_grows_long_is_turned_over(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "_LOG_BYTES", 10_000)
    supervisor = Supervisor({"talker": [sys.executable, "-c", "while True: print('x' * 99, flush=True)"]}, tmp_path)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "talker.log.1").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    supervisor.stopping.set()
    thread.join()
    assert supervisor.restarts == 0 and (tmp_path / "talker.log.1").stat().st_size > 10_000
    assert b"\0" not in (tmp_path / "talker.log").read_bytes()  # no hole where the old lines were


def test_what_a_host_has_built_is_no_part_of_an_image():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".venv", "build", ".git"} <= set(ignored)
    kept_out = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert {line.removeprefix("**/") for line in ignored} >= kept_out


def test_what_set_up_may_ask_for_in_an_image_is_what_readme_says_of_it():
    services = yaml.safe_load((ROOT / "jobs" / "deploy" / "compose.yaml").read_text())["services"]
    assert services["heavy"]["build"]["args"] == ["TORCH_INDEX_URL"]
    for text in ("jobs/deploy/Dockerfile", "README.md", ".ci/setup"):
        assert "TORCH_INDEX_URL" in (ROOT / text).read_text()
