"""What goes live, when, and under which name."""

import getpass
import json
import types

import numpy as np
import pytest

from recsys_kd.artifact.read import open_artifact
from recsys_kd.evaluate.gate import Check, verdict_of
from recsys_kd.flow import publication
from recsys_kd.flow.compression import artifact_bytes, publish_artifact
from recsys_kd.flow.publication import promote, register, user_name
from recsys_kd.flow.reporting import finite
from recsys_kd.registry.protocol import StaleEpoch
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.served import artifact, compressed, random_student

DIGESTS = {"data": "d" * 64, "recipe": "r" * 64, "teacher": "t" * 64}


def passing(version):
    return verdict_of([Check("auc", True, 0.1, 0.2, "within the margin")], version.digest, "d")


@pytest.fixture(scope="module")
def three(dataset, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return [artifact(dataset, store, seed) for seed in range(3)]


def test_a_promotion_is_refused_where_the_champion_changed_after_it_was_compared_with(three, tmp_path):
    registry = SqliteRegistry(tmp_path / "registry.sqlite")
    versions = [register(registry, "shop", a) for a in three]
    assert promote(registry, versions[0], passing(versions[0]), registry.epoch("shop")).number == 1
    seen = registry.epoch("shop")  # two nights compare with version 1
    assert promote(registry, versions[1], passing(versions[1]), seen).number == 2
    with pytest.raises(StaleEpoch):
        promote(registry, versions[2], passing(versions[2]), seen)
    assert registry.pointer("shop", "champion").number == 2


def test_an_unchanged_night_is_the_same_artifact_whoever_was_champion(dataset, tmp_path):
    made = compressed(dataset, random_student(dataset), keep_rows=0.5)
    first = publish_artifact(tmp_path, "shop", made, dataset, DIGESTS, [])
    assert artifact_bytes("shop", made, dataset, DIGESTS, []) == first.bytes_on_disk
    again = publish_artifact(tmp_path, "shop", made, dataset, DIGESTS, [first.digest])
    assert again.digest == first.digest and open_artifact(again.path)[0].manifest == first.manifest
    other = publish_artifact(tmp_path, "shop", made, dataset, {**DIGESTS, "data": "e" * 64}, [])
    assert other.digest != first.digest
    (first.path / "weights.safetensors").write_bytes(b"broken")
    assert publish_artifact(tmp_path, "shop", made, dataset, DIGESTS, ["x"]).digest != first.digest


def test_a_user_without_a_name_has_a_number(monkeypatch):
    assert user_name() == getpass.getuser()

    def nameless():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(publication, "getpass", types.SimpleNamespace(getuser=nameless))
    assert user_name() == f"uid {publication.os.getuid()}"


def test_undefined_numbers_are_null_in_a_report():
    given = {"fits": [{"auc": float("nan")}], "n": 3, "low": float("-inf"), "pair": (1.5, np.nan)}
    plain = finite(given)
    assert plain == {"fits": [{"auc": None}], "n": 3, "low": None, "pair": [1.5, None]}
    json.dumps(plain, allow_nan=False)
