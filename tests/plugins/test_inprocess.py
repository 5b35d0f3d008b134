import importlib.metadata

import pytest

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.registry.sqlite import SqliteRegistry
from recsys_kd_inprocess import Backend, NoChampion, RegistryUnreadable
from tests.registry.test_registry import verdict
from tests.served import artifact


def publish(registry, dataset, store, seed):
    made = artifact(dataset, store, seed)
    version = registry.register("shop", made.digest, made.path, {}, "ann")
    registry.promote("shop", version.number, verdict(made.digest), registry.epoch("shop"), "ann", "")
    return made


def test_the_plugin_serves_the_champion_takes_the_next_one_and_refuses_a_broken_one(dataset, tmp_path):
    registry = SqliteRegistry(tmp_path / "registry.sqlite")
    with pytest.raises(NoChampion, match="no champion"):
        Backend(tmp_path, "shop")
    publish(registry, dataset, tmp_path, 0)
    backend = Backend(tmp_path, "shop")
    items = dataset.keys("item")[:5].tolist()
    before = backend.score({"user_id": 1}, items)
    assert not backend.refresh()
    publish(registry, dataset, tmp_path, 1)
    assert backend.refresh() and backend.version == 2
    after = backend.score({"user_id": 1}, items)
    assert (before != after).any()
    third = publish(registry, dataset, tmp_path, 2)
    (third.path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactRefused):
        backend.refresh()
    assert (backend.score({"user_id": 1}, items) == after).all() and backend.version == 2


def test_a_folder_without_registry_is_named(tmp_path):
    with pytest.raises(RegistryUnreadable, match=str(tmp_path)):
        Backend(tmp_path, "shop")


def test_the_installed_plugin_is_found_by_entry_point():
    found = {e.name: e for e in importlib.metadata.entry_points(group="recsys_kd.serving")}
    assert found["inprocess"].load().api_version == 1
