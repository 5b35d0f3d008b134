"""A night through a real Redis and a real worker."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from recsys_kd.settings import load_recipe
from tests.conftest import quick

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = shutil.which("redis-server")
    assert server, "redis-server is missing; run `make setup`, or install it from the system's packages"
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes"],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)  # nothing to wait on: the server tells nobody that it is up
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture(scope="module")
def submit(redis, tmp_path_factory):
    """Return a function that sends a night to a worker and waits for its result, as another process would."""
    environment = {**os.environ, "RECSYS_KD_BROKER": redis, "PYTHONPATH": str(ROOT)}
    log = (tmp_path_factory.mktemp("worker") / "log").open("w")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "jobs.app", "worker", "-c", "1", "-Q", "nights"],
        env=environment, cwd=ROOT, stdout=log, stderr=log,
    )  # fmt: skip
    code = "import sys; from jobs.tasks import night; print(night.delay(sys.argv[1]).get(timeout=200))"

    def send(recipe):
        command = [sys.executable, "-c", code, str(recipe)]
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
        )

    yield send
    worker.terminate()
    worker.wait(timeout=60)
    log.close()


def test_a_night_runs_on_a_worker_and_its_summary_comes_back(submit, shop, tmp_path):
    recipe = quick(load_recipe(shop.recipe), tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    done = submit(path)
    assert done.returncode == 0, done.stderr
    assert "'passed': True" in done.stdout and "'version': 1" in done.stdout
    assert (tmp_path / "store" / "registry.sqlite").exists()


def test_a_night_that_can_not_start_says_why(submit, tmp_path):
    done = submit(tmp_path / "absent.yaml")
    assert done.returncode == 1 and "exit code 2" in done.stderr and "can't be read" in done.stderr
