"""`recsys-kd jobs up` and `down` as a shell runs them: what they start, refuse, and leave behind, which is nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis
import yaml

from jobs import local_redis, up
from jobs.config import JobsConfig
from jobs.up import AlreadyUp
from tests.redis_server import RedisServer, free_port

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "recsys_kd", "jobs"]
MARK = "UP_TEST"
pytestmark = pytest.mark.timeout(600)  # seconds on an idle machine, minutes on a busy one


def heeding_hangups() -> None:
    """Start as from a terminal, even where the tests themselves were started by nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Up:
    """An application of its own; everything that it starts has a mark in its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        broker = f"redis://127.0.0.1:{self.port}"
        self.plain = {"broker": f"{broker}/0", "state": f"{broker}/1", "desk": "desk"}
        self.plain |= {f"{name}_port": free_port() for name in ("flower", "server", "server_grpc", "metrics")}
        self.environment = {
            **os.environ, "RECSYS_KD_JOBS": str(folder / "jobs.yaml"), "PYTHONPATH": str(ROOT), MARK: str(folder)
        }  # fmt: skip

    def call(self, *arguments):
        self.write()
        return subprocess.run(
            [*COMMAND, *arguments], env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip

    def write(self):
        (self.folder / "jobs.yaml").write_text(yaml.safe_dump(self.plain))

    def start(self, *before):
        self.write()
        with (self.folder / "up.log").open("w") as log:
            self.process = subprocess.Popen(
                [*before, *COMMAND, "up", self.folder / "up"], env=self.environment, cwd=ROOT, stdout=log, stderr=log,
                preexec_fn=heeding_hangups,
            )  # fmt: skip
        deadline = time.monotonic() + 240
        while " ready." not in self.log("heavy") or " ready." not in self.log("light"):
            assert time.monotonic() < deadline and self.process.poll() is None, (self.folder / "up.log").read_text()
            time.sleep(0.1)

    def log(self, name):
        path = self.folder / "up" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def down(self):
        assert self.call("down", str(self.folder / "up")).stdout == "stopped\n"
        return self.process.wait(timeout=120)

    def left(self):
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for_none(self):
        deadline = time.monotonic() + 100
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.1)
        return [" ".join(p.cmdline()) for p in self.left()]


@pytest.fixture
def application(tmp_path):
    made = Up(tmp_path)
    yield made
    for process in made.left():
        process.kill()


def test_up_and_down_start_and_stop_the_whole_application_whose_logs_are_json(application, tmp_path):
    application.start()
    assert "already" in application.call("up", str(tmp_path / "up")).stderr and AlreadyUp.exit_code == 3
    other = application.call("up", str(tmp_path / "other"))
    stale = tmp_path / "stale" / up.PID  # its number is somebody else's by now
    stale.parent.mkdir()
    stale.write_text(str(application.process.pid))
    assert up.running(tmp_path / "up") == application.process.pid and not up.stop(stale.parent)
    assert other.returncode == 3 and "metrics_port" in other.stderr and "another `recsys-kd jobs up`" in other.stderr
    for name in ("heavy", "light", "reconcile", "beat"):
        assert all(json.loads(line)["level"] for line in application.log(name).splitlines()), name
    assert "beat: Starting..." in application.log("beat")
    assert application.down() == 0 and application.wait_for_none() == []
    assert not up.stop(tmp_path / "up") and application.call("down").stdout == "nothing was running\n"


@pytest.mark.skipif(sys.platform != "linux", reason="that a process ends with its parent is Linux's")
def test_up_that_is_killed_leaves_nothing_behind_and_another_starts_in_its_folder(application, tmp_path):
    application.start()
    pool = [
        p for p in application.left() if "--multiprocessing-fork" in p.cmdline() or "spawn_main" in str(p.cmdline())
    ]
    assert pool, "a worker has pool processes, which must go too"
    application.process.kill()
    application.process.wait()
    assert application.wait_for_none() == []
    assert application.call("down", str(tmp_path / "up")).stdout == "nothing was running\n"
    for name in ("heavy", "light"):
        (tmp_path / "up" / f"{name}.log").unlink()
    application.start()
    assert application.down() == 0


def test_a_closed_terminal_stops_all_and_nohup_keeps_it(application, tmp_path):
    application.start()
    application.process.send_signal(signal.SIGHUP)
    assert application.process.wait(timeout=120) == 0 and application.wait_for_none() == []
    for name in ("heavy", "light"):
        (tmp_path / "up" / f"{name}.log").unlink()
    application.start("nohup")
    application.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        application.process.wait(timeout=2)
    assert application.down() == 0


def test_every_redis_that_the_configuration_names_here_is_started_with_the_password_that_it_has(application, tmp_path):
    port = free_port()
    application.plain["registry"] = f"redis://:h%40sh@127.0.0.1:{port}/0"
    application.start()
    assert (tmp_path / "up.log").read_text().startswith("up: redis, registry, heavy, light")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port).ping()
    for client in (redis.Redis(port=port, password="h@sh"), redis.Redis(port=application.port)):
        told = {k: client.config_get(k)[k] for k in ("appendonly", "maxmemory-policy")}
        assert told == {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    assert not any("h@sh" in part for process in application.left() for part in process.cmdline())
    for name in ("redis", "registry"):
        conf = tmp_path / "up" / name / "redis.conf"
        assert conf.stat().st_mode & 0o077 == 0 and "h@sh" not in conf.read_text()
        assert (tmp_path / "up" / name / "appendonlydir").is_dir()
    assert application.down() == 0


def test_who_logs_in_to_a_server_is_what_the_urls_say(tmp_path):
    port = free_port()
    config = JobsConfig(
        broker=f"redis://ann:one@localhost:{port}/0", state=f"redis://bob:two@127.0.0.1:{port}/1",
        registry=f"redis://elsewhere:{port}/2",
    )  # fmt: skip
    found = local_redis.missing(config)
    assert found == {"redis": [config.broker, config.state]}
    server = subprocess.Popen(local_redis.command("redis", found["redis"], tmp_path), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not local_redis.listens(port) and time.monotonic() < deadline:
            time.sleep(0.02)
        for url in (config.broker, config.state):
            assert redis.Redis.from_url(url).set("a", "b")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
    finally:
        server.terminate()
        server.wait()


def test_a_configuration_that_workers_refuse_is_refused_with_their_words_and_nothing_stays(application, tmp_path):
    (tmp_path / "forgetful").mkdir()
    server = RedisServer(tmp_path / "forgetful", "--appendonly", "no", "--maxmemory-policy", "allkeys-lru")
    try:
        application.plain |= {"broker": server.url(0), "state": server.url(1), "production": True}
        application.plain["registry"] = f"redis://127.0.0.1:{free_port()}/0"
        done = application.call("up", str(tmp_path / "up"))
    finally:
        server.stop()
    assert done.returncode == 3 and "up: " not in done.stderr  # as `doctor` says: what is wrong is outside
    for words in ("error: jobs.broker: ", "appendonly yes", "maxmemory-policy noeviction", "nothing was started"):
        assert words in done.stderr
    assert application.wait_for_none() == [] and up.running(tmp_path / "up") is None


def test_a_redis_that_does_not_start_is_told_with_its_log(application, tmp_path):
    folder = tmp_path / "up" / "redis" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("nonsense\n")
    done = application.call("up", str(tmp_path / "up"))
    assert done.returncode == 3 and f"ended at its start; see {tmp_path / 'up' / 'redis'}.log" in done.stderr
    assert application.wait_for_none() == []


def test_a_database_that_redis_does_not_have_is_told_at_once(application, tmp_path):
    application.plain["state"] = f"redis://127.0.0.1:{application.port}/99"
    application.plain["broker"] = f"redis://127.0.0.1:{application.port}/98"
    done = application.call("up", str(tmp_path / "up"))
    assert done.returncode == 3 and "out of range; mend the address in the jobs configuration" in done.stderr
    assert application.wait_for_none() == []


def test_a_number_that_another_process_has_by_now_is_nobodys(tmp_path):
    mine = up._name(psutil.Process())
    assert up._holder(mine) == os.getpid()
    for stale in ("", f"{os.getpid()}", f"{os.getpid()} 1.00", "999999999 1.00"):
        assert up._holder(stale) is None
