"""`recsys-kd serve` as a shell starts it: what it says, how it follows the registry, and how it ends."""

import json
import subprocess
import sys
import time

import httpx
import numpy as np
import pyarrow.dataset as ds
import pytest

from recsys_kd.errors import InputError
from recsys_kd.runtime.ranker import Ranker
from recsys_kd_kserve.client import GrpcClient, RestClient
from recsys_kd_kserve.settings import Settings, load_settings
from tests.paths import PATHS
from tests.plugins.kserve_host import LISTED, half_sent
from tests.plugins.processes import ROOT, Process
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST, World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    made.publish(1)
    return made


@pytest.fixture
def serve(world, tmp_path):
    """Start serving processes, which are ended at the end."""
    started = []

    def start(**settings):
        config = tmp_path / f"serve-{len(started)}.yaml"
        config.write_text(json.dumps({"state": str(world.pointers), "poll_seconds": 0.2} | settings))
        registry = str(world.store / "registry.sqlite")
        process = Process("--model", "shop", "--registry", registry, "--config", str(config))
        started.append(process)
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.terminate()
            process.end()


def number(listening):
    return httpx.get(f"{listening['rest']}/v2/models/shop/ready").headers["x-model-version"]


def test_two_processes_take_over_a_new_version_and_write_a_line_per_swap_and_none_per_request(world, serve):
    processes = [serve(), serve()]
    listening = [p.event("listening") for p in processes]
    world.publish(2)
    assert [p.event("swap", 2)["number"] for p in processes] == [2, 2]  # the benchmark holds it to two polls
    for where in listening:
        assert number(where) == "2"
        with RestClient(where["rest"], "shop") as rest, GrpcClient(where["grpc"], "shop") as rpc:
            for client in (rest, rpc):
                for _ in range(5):
                    assert client.score(REQUEST, CANDIDATES, FEATURES).version == 2
        assert httpx.post(f"{where['rest']}/v2/models/shop/infer", json={}).status_code == 400
    for process in processes:
        process.terminate()
        assert process.end() == 0
        assert [line["event"] for line in process.lines] == ["swap", "listening", "swap"]
        assert {"at", "level", "model", "digest", "before", "seconds", "source"} <= process.lines[0].keys()


def test_a_process_that_is_told_to_end_answers_what_has_begun(world, serve):
    process = serve()
    where = process.event("listening")
    body = json.dumps(LISTED).encode()
    slow = half_sent(int(where["rest"].rpartition(":")[2]), len(body))
    time.sleep(0.2)  # it must have been taken in, of which nobody tells
    process.terminate()
    time.sleep(0.3)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{where['rest']}/v2/health/live")
    slow.sendall(body[len(b'{"inputs"') :])
    answer = b""
    while part := slow.recv(65536):
        answer += part
    slow.close()
    assert answer.startswith(b"HTTP/1.1 200") and b"x-model-version: 1" in answer
    assert process.end() == 0


def test_without_its_registry_a_restarted_process_serves_what_it_served(world, serve):
    first = serve()
    first.event("listening")
    first.terminate()
    assert first.end() == 0
    for path in world.store.glob("registry.sqlite*"):
        path.unlink()
    again = serve()
    assert number(again.event("listening")) == "1" and again.event("swap")["source"] == "last-known-good"
    assert again.event("refusal")["reason"] == "registry-unreachable"
    assert not (world.store / "registry.sqlite").exists()


def test_a_shadow_writes_parquet_and_metrics(world, serve, tmp_path):
    second = world.artifact(2)
    world.register(second)
    world.registry.name("shop", "challenger", 2, "ann", "try")
    process = serve(shadow=1.0, shadow_log=str(tmp_path / "log"))
    where = process.event("listening")
    with GrpcClient(where["grpc"], "shop") as client:
        for _ in range(20):
            answer = client.score(REQUEST, CANDIDATES, FEATURES)
    assert answer.version == 1
    metrics = httpx.get(f"{where['rest']}/metrics").text
    assert 'recsys_kd_shadow_requests_total{model="shop",outcome="compared"}' in metrics
    process.terminate()
    assert process.end() == 0
    rows = ds.dataset(tmp_path / "log" / "shop", partitioning="hive").to_table().to_pylist()
    difference = np.abs(Ranker.open(second).score(REQUEST, CANDIDATES, FEATURES) - answer.scores)
    assert len(rows) == 20 and {(r["champion"], r["challenger"], r["error"]) for r in rows} == {(1, 2, "")}
    assert rows[0]["mean_difference"] == pytest.approx(difference.mean()) and rows[0]["at"].year >= 2026


def command(*arguments):
    paths = ":".join([str(ROOT), *PATHS])
    return subprocess.run(
        [sys.executable, "-m", "recsys_kd", "serve", *arguments],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def test_what_can_not_be_served_ends_with_a_message_and_its_exit_code(world, tmp_path):
    registry, state = str(world.store / "registry.sqlite"), tmp_path / "serve.yaml"
    state.write_text(f"state: {world.pointers}\n")
    unknown = command("--model", "nobody", "--registry", registry, "--config", str(state))
    assert unknown.returncode == 2 and "the registry names no champion of 'nobody'" in unknown.stderr
    nowhere = command("--model", "shop", "--registry", str(tmp_path / "none.sqlite"), "--config", str(state))
    assert nowhere.returncode == 3 and "none.sqlite: there is no such registry" in nowhere.stderr
    state.write_text("max_bites: 5\ncanary: 2\n")
    bad = command("--model", "shop", "--config", str(state))
    assert bad.returncode == 2 and "max_bites: unknown key" in bad.stderr and "canary: " in bad.stderr


def test_settings_have_defaults_and_a_missing_file_is_named(tmp_path):
    assert load_settings(None) == Settings() and Settings().host == "127.0.0.1"
    with pytest.raises(InputError, match=r"none\.yaml: .*give a YAML file"):
        load_settings(tmp_path / "none.yaml")


def test_importing_the_plugin_and_its_command_imports_no_server_and_no_training_library():
    code = (
        "import sys, recsys_kd_kserve, recsys_kd_kserve.cli, recsys_kd_kserve.client; "
        "from recsys_kd.runtime import plugins; assert plugins.find('kserve').api_version == 1; "
        "print([m for m in ('kserve', 'fastapi', 'grpc', 'torch', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    paths = ":".join([str(ROOT), *PATHS])
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": paths}
    )
    assert found.stdout.strip() == "[]"


def test_kserve_sees_an_empty_command_line_and_ours_is_as_it_was():
    code = (
        "import sys; sys.argv = ['x', '--workers', 'many', '--model', 'shop']; import recsys_kd_kserve.kserve_api; "
        "print(sys.argv)"
    )
    paths = ":".join([str(ROOT), *PATHS])
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": paths}
    )
    assert found.stdout.strip() == "['x', '--workers', 'many', '--model', 'shop']"
