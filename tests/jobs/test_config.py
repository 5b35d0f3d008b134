"""Addresses that can't be used are refused where they are read, not where they are first tried."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.config import from_environment, load
from recsys_kd.settings import BadRecipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("broker", "http://x", "got 'http://x'; give redis://host:port/database, or rediss:// for TLS"),
     ("broker", "amqp://ann:hush@x", "got 'amqp://ann:***@x'; give redis://host"),
     ("broker", "unix:///run/redis.sock", "got 'unix:///run/redis.sock'; give redis://host"),
     ("state", "foo", "got 'foo'; give redis://host"),
     ("state", "redis://:hush@h:abc/1", "got 'redis://:***@h:abc/1'; its port is no number from 1 to 65535, give one"),
     ("broker", "redis://h:99999/0", "got 'redis://h:99999/0'; its port is no number from 1 to 65535, give one"),
     ("state", "redis://h/one", "got 'redis://h/one'; its database 'one' is no number, give one, e.g. /1"),
     ("registry", "http://x", "http://x: no registry is kept there; give redis://")],
)  # fmt: skip
def test_an_address_that_can_not_be_used_is_refused_by_key_and_value(tmp_path, key, value, told):
    path = tmp_path / "jobs.yaml"
    path.write_text(yaml.safe_dump({key: value}))
    with pytest.raises(BadRecipe) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: {key}: {told}") and "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("broker", "rediss://ann:hush@h:6380/2?ssl_ca_certs=c.pem"), ("state", "redis://[::1]/"),
     ("state", "unix:///run/redis.sock?db=1"), ("registry", "redis://h"), ("registry", "unix:///run/redis.sock")],
)  # fmt: skip
def test_an_address_that_can_be_used_is_taken_as_it_is(tmp_path, key, value):
    path = tmp_path / "jobs.yaml"
    path.write_text(yaml.safe_dump({key: value}))
    assert getattr(load(path), key) == value


def test_paths_are_taken_from_the_files_folder_whatever_the_current_one_is(tmp_path, monkeypatch):
    path = tmp_path / "there" / "jobs.yaml"
    path.parent.mkdir()
    path.write_text("registry: all.sqlite\ndesk: desk\n")
    monkeypatch.chdir(tmp_path)
    config = load(Path("there/jobs.yaml"))
    assert (config.registry, config.desk) == (str(path.parent / "all.sqlite"), path.parent / "desk")


def test_an_address_from_the_environment_is_refused_by_its_name(monkeypatch):
    monkeypatch.delenv("RECSYS_KD_JOBS", raising=False)
    monkeypatch.setenv("RECSYS_KD_BROKER", "http://x")
    with pytest.raises(BadRecipe, match=r"^the environment's RECSYS_KD_BROKER: broker: got 'http://x'; give redis://"):
        from_environment()


def test_the_reconciler_ends_with_a_line_of_its_log_where_it_can_not_be_configured():
    environment = {**os.environ, "RECSYS_KD_BROKER": "http://x"}
    command = [sys.executable, "-m", "jobs.reconciler"]
    ended = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )  # fmt: skip
    assert ended.returncode == 2 and "got 'http://x'" in json.loads(ended.stderr)["message"]
