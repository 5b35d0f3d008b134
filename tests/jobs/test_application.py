"""The application as a shop runs it: real Redis, real workers, a real night, driven by the command line."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml

from recsys_kd.runtime.ranker import Ranker
from tests.chaos.world import ROOT, Limits, World
from tests.redis_server import free_port

pytestmark = pytest.mark.timeout(600)  # seconds on an idle machine, minutes on a busy one
NIGHT = "shop-0@2026-01-09"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    limits = Limits(attempts=2, lease=30, stage=900, visibility=1000)  # what a busy machine needs
    world = World(tmp_path_factory.mktemp("application"), models=1, nights=4, limits=limits, heavy=1)
    world.start()
    yield world
    assert world.close() == []


def cli(world, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "recsys_kd", *arguments],
        env=world.environment, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


def recipe(world):
    return str(world.shop / "shop-0.yaml")


def wait(world, run, phase, seconds=250):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        night = world.board.get(run)
        if night is not None and night.phase == phase:
            return night
        time.sleep(0.1)  # Redis is not asked to tell
    pytest.fail(f"{run} is not {phase}: {world.board.get(run)}")


def test_a_submitted_night_is_followed_live_and_published_once(world):
    assert json.loads(cli(world, "submit", recipe(world), "--night", "2026-01-09", "--json").stdout) == {"run": NIGHT}
    followed = cli(world, "jobs", "status", NIGHT, "--follow")
    assert followed.returncode == 0 and "published  live" in followed.stdout, followed.stderr
    assert "train    rows: " in followed.stderr and "train    student, epoch 1" in followed.stderr
    record = world.registry.state("shop-0").nights["2026-01-09"]
    assert record.outcome == "live" and Ranker.open(world.shop / "store" / "shop-0" / record.digest)
    assert cli(world, "submit", recipe(world), "--night", "2026-01-09").returncode == 0
    time.sleep(2.5)  # two rounds of the reconciler
    actions = [e.action for e in world.registry.audit("shop-0")]
    assert actions == ["register", "publish"]
    assert not (world.shop / "desk" / "nights" / "shop-0" / "2026-01-09" / "work").exists()


def test_its_log_lines_are_json_and_name_run_night_and_stage(world):
    text = (world.folder / "logs" / "heavy-0.log").read_text().splitlines()
    lines = [json.loads(line) for line in text if line.startswith("{")]  # the banner and warnings come before logging
    about = [line for line in lines if line.get("run") == NIGHT]
    assert {"started", "done"} <= {line["message"] for line in about}
    assert {(line["model"], line["night"], line["stage"]) for line in about} == {("shop-0", "2026-01-09", "train")}


def get(url):
    deadline = time.monotonic() + 400
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)  # the server tells nobody that it is up


def test_prometheus_metrics_are_served_by_a_worker(world):
    text = get(f"http://127.0.0.1:{world.config.metrics_port}/metrics")
    assert 'recsys_kd_nights{model="shop-0",phase="published"} 1.0' in text and "recsys_kd_board_up 1.0" in text
    assert 'recsys_kd_stage_done_total{stage="train"} 1.0' in text
    assert 'recsys_kd_stage_done_total{stage="tidy"} 1.0' in text


def test_the_server_beside_the_workers_serves_what_they_published(world):
    command = [sys.executable, "-m", "jobs.server", str(world.folder / "server")]
    with (world.folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=world.environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        found = json.loads(get(f"http://127.0.0.1:{world.config.server_port}/v2/models/shop-0"))
        assert found["versions"] == ["1"] and "device" in [i["name"] for i in found["inputs"]]
    finally:
        server.terminate()
        server.wait(timeout=120)
    assert server.returncode == 0 and (world.folder / "server" / "serving").is_dir()


def test_flower_shows_the_workers(world):
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "jobs.app", "flower", "--address=127.0.0.1", f"--port={port}"]
    with (world.folder / "flower.log").open("w") as log:
        flower = subprocess.Popen(command, env=world.environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        assert get(f"http://127.0.0.1:{port}/healthcheck") == "OK"
        deadline = time.monotonic() + 150
        while "heavy-0@" not in (page := get(f"http://127.0.0.1:{port}/workers")) and time.monotonic() < deadline:
            time.sleep(0.5)  # heartbeats come every two seconds
        assert "heavy-0@" in page and "light@" in page
    finally:
        flower.terminate()
        flower.wait(timeout=120)


def test_a_poisoned_night_is_a_dead_letter_that_says_what_to_do_and_lives_after_retry(world):
    path = world.shop / "mended.yaml"
    good = yaml.safe_load((world.shop / "shop-0.yaml").read_text()) | {"name": "mended"}
    path.write_text(yaml.safe_dump(good | {"data": good["data"] | {"columns": {"label": "bought"}}}))
    run = "mended@2026-01-09"
    cli(world, "submit", str(path), "--night", "2026-01-09")
    night = wait(world, run, "dead")
    assert "data.columns.label: no column 'bought'" in night.reason and night.attempts == 1
    letter = json.loads(cli(world, "jobs", "show", run).stdout)
    assert letter["retry"] == f"recsys-kd jobs retry {run}" and "bought" in letter["last_lines"][-1]
    assert "mended@2026-01-09  dead" in cli(world, "jobs", "status", "mended").stdout
    path.write_text(yaml.safe_dump(good))
    assert "waiting" in cli(world, "jobs", "retry", run).stdout
    assert wait(world, run, "published").outcome == "live"


def test_a_night_that_the_gate_holds_back_says_why_wherever_it_is_asked(world):
    path = world.shop / "strict.yaml"
    good = yaml.safe_load((world.shop / "shop-0.yaml").read_text())
    path.write_text(yaml.safe_dump(good | {"name": "strict", "gate": good["gate"] | {"min_ratio": 1000}}))
    run = "strict@2026-01-09"
    cli(world, "submit", str(path), "--night", "2026-01-09")
    followed = cli(world, "jobs", "status", run, "--follow")
    verdict = json.loads(cli(world, "jobs", "show", run).stdout)["verdict"]
    (why,) = verdict["held_by"]
    assert "1000" in why and not verdict["passed"] and why in verdict["reasons"]
    assert followed.returncode == 1 and followed.stdout.rstrip().endswith(why), followed.stderr
    assert verdict["report"].endswith(".html")
    assert cli(world, "submit", str(path), "--night", "2026-01-09").stdout.startswith("published already: strict@")


def test_a_cancelled_night_stops_at_once_and_is_not_published_until_it_is_retried(world):
    done = cli(world, "jobs", "backfill", recipe(world), "--from", "2026-01-10", "--to", "2026-01-11", "--json")
    first, second = json.loads(done.stdout)["runs"]
    wait(world, first, "running")
    cancelled = cli(world, "jobs", "cancel", first)
    assert "cancelled" in cancelled.stdout, cancelled.stderr
    wait(world, second, "published")
    assert "2026-01-10" not in world.registry.state("shop-0").nights
    assert cli(world, "jobs", "cancel", second).returncode == 2
    cli(world, "jobs", "retry", first)
    assert wait(world, first, "published").outcome == "late"  # a newer night is live


def test_a_night_whose_log_is_late_waits_and_says_so_and_runs_when_it_has_come(world):
    day = world.shop / "log" / "day=2026-01-12"
    late = day.rename(world.shop / "late")
    (run,) = json.loads(cli(world, "submit", recipe(world), "--night", "2026-01-12", "--json").stdout).values()
    night = wait(world, run, "waiting")  # between two attempts: one under way is counted until it has ended
    assert night.waited > 0 and night.attempts == 0
    assert "has nothing of 2026-01-12, its last day is 2026-01-11" in night.reason
    late.rename(day)
    assert wait(world, run, "published").attempts == 1


def test_an_unknown_night_is_named(world):
    done = cli(world, "jobs", "show", "shop-0@2020-01-01")
    assert done.returncode == 2 and "nobody wanted that night" in done.stderr and "Traceback" not in done.stderr
