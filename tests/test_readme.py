"""What the README shows is run."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.config import JobsConfig
from recsys_kd.data.interactions_config import ImportConfig
from recsys_kd.evaluate.policy import Policy
from recsys_kd.flow.conformance_models import promote, write_model
from recsys_kd.registry.sqlite import SqliteRegistry
from recsys_kd.runtime.plugins import ServingConfig
from recsys_kd.settings import Recipe
from recsys_kd_kserve.config import ServerConfig
from recsys_kd_kserve.server import Server
from recsys_kd_kserve.settings import Settings
from tests.served import artifact

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_configurations_are_valid():
    recipe, purchases, serving, policy, jobs = (yaml.safe_load(text) for text in blocks("yaml"))
    assert Recipe.model_validate(recipe).name == "my-shop"
    assert JobsConfig.model_validate(jobs).models[0].first.isoformat() == "2026-01-05"
    assert Policy.model_validate(policy).margins("teacher")["logloss"] == 0.01
    assert Settings.model_validate(serving).canary == 0.05
    assert ImportConfig.model_validate(purchases).columns.user == "customer"


def test_the_serving_example_runs(dataset, tmp_path):
    code, *_ = blocks("python")
    names = {"artifact": artifact(dataset, tmp_path).path}
    exec(code, names)
    assert names["probabilities"].shape == (3,) and len(names["best"]) == 2


@pytest.fixture
def server(tmp_path):
    """Serve a model of the name and the fields that the README's examples have."""
    registry, store = tmp_path / "registry.sqlite", tmp_path / "store"
    promote(SqliteRegistry(registry), write_model(store, 0, "my-shop"), "my-shop")
    made = Server(ServerConfig(("my-shop",), ServingConfig("my-shop", str(registry)), 0, 0))
    made.start()
    yield made
    made.stop()


def test_the_serving_clients_examples_run(server, capsys):
    _, code, _ = blocks("python")
    exec(code.replace(":8081", f":{server.grpc_port}"), names := {})
    assert names["answer"].scores.shape == (3,) and capsys.readouterr().out.startswith("1 [0.")
    (shell,) = blocks("sh")
    shell = shell.replace(":8080", f":{server.port}")
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["model_version"] == "1"
    assert np.array_equal(np.float32(found["outputs"][0]["data"]), names["answer"].scores)


def test_the_notebook_example_runs_in_five_lines(tmp_path, monkeypatch, capsys):
    *_, code = blocks("python")
    rng = np.random.default_rng(0)
    logit, request = rng.normal(size=2000), np.repeat(np.arange(400), 5)
    log = {
        "user_id": request // 4, "item_id": np.tile(np.arange(5), 400), "timestamp": 1_767_600_000 + request,
        "label": (rng.random(2000) < 1 / (1 + np.exp(-logit))).astype(np.int8), "request_id": request,
        "old": logit + 3 * rng.normal(size=2000), "new": logit,
    }  # fmt: skip
    pq.write_table(pa.table(log), tmp_path / "log.parquet", write_page_checksum=True)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.startswith("Use new: it is better than old") and len(code.split("\n")) <= 6


def test_every_make_target_and_command_it_names_exists():
    root = Path(__file__).resolve().parents[1]
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", README)):
        assert f"\n{target}:" in makefile
    commands = (root / "recsys_kd" / "cli" / "main.py").read_text() + "def registry( def jobs( def study("
    commands += (root / "jobs" / "cli.py").read_text() + (root / "recsys_kd" / "cli" / "registry.py").read_text()
    commands += (root / "plugins" / "kserve" / "recsys_kd_kserve" / "cli.py").read_text()
    for command in set(re.findall(r"recsys-kd (?:jobs |registry )?(\w+)", README)):
        assert f"def {command}(" in commands or f'command("{command}")' in commands
