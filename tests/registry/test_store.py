"""The store as the registry's truth: its copy, rebuilding, and collecting, on real artifacts."""

import json
import os
import time

import pytest

from recsys_kd.cli import registry as commands
from recsys_kd.registry.protocol import RegistryNotEmpty
from recsys_kd.registry.sqlite import SqliteRegistry
from recsys_kd.registry.store import CopyUnreadable, collect, copy_beside, read_copy, rebuild, write_copy
from tests.registry.test_registry import verdict
from tests.served import artifact


@pytest.fixture
def registry(tmp_path):
    return SqliteRegistry(tmp_path / "registry.sqlite")


def publish(registry, dataset, store, seed, night):
    made = artifact(dataset, store, seed)
    version = registry.register("shop", made.digest, made.path, {}, "ann")
    claim = registry.claim("shop", night)
    registry.publish("shop", version.number, verdict(made.digest), registry.epoch("shop"), claim, "ann")
    return made


def test_a_lost_registry_comes_back_from_the_store_with_numbers_aliases_and_nights(registry, dataset, tmp_path):
    first = publish(registry, dataset, tmp_path, 0, "2026-01-05")
    second = publish(registry, dataset, tmp_path, 1, "2026-01-06")
    write_copy(registry, tmp_path, "shop")
    third = artifact(dataset, tmp_path, 2)  # written, not yet registered
    fourth = artifact(dataset, tmp_path, 3)
    (fourth.path / "weights.safetensors").write_bytes(b"")
    before = registry.state("shop")
    lost = SqliteRegistry(tmp_path / "new.sqlite")
    found = rebuild(lost, tmp_path, "shop", "ann")
    assert (found.versions, found.nights, found.champion, found.registered) == (3, 2, second.digest, 1)
    assert len(found.refused) == 1 and fourth.digest[:12] in found.refused[0]
    after = lost.state("shop")
    assert (after.nights, after.aliases) == (before.nights, before.aliases)
    assert [v.digest for _, v in sorted(after.versions.items())] == [first.digest, second.digest, third.digest]
    with pytest.raises(RegistryNotEmpty):
        rebuild(lost, tmp_path, "shop", "ann")


@pytest.mark.parametrize("copied", [True, False], ids=["with a copy", "from the artifacts alone"])
def test_the_champion_after_a_rebuild_has_an_epoch_above_any_of_the_registry_that_was_lost(
    registry, dataset, tmp_path, copied
):
    publish(registry, dataset, tmp_path, 0, "2026-01-05")
    if copied:
        write_copy(registry, tmp_path, "shop")
    for seed, night in ((1, "2026-01-06"), (2, "2026-01-07")):  # the store's copy knows nothing of these
        last = publish(registry, dataset, tmp_path, seed, night)
    assert registry.epoch("shop") == 3
    lost, began = SqliteRegistry(tmp_path / "new.sqlite"), time.time_ns() // 1_000_000
    found = rebuild(lost, tmp_path, "shop", "ann")
    assert lost.epoch("shop") == (1 if copied else 0) and began < found.next_epoch <= time.time_ns() // 1_000_000 + 1
    number = next(v.number for v in lost.versions("shop") if v.digest == last.digest)
    pointer = lost.promote("shop", number, verdict(last.digest), lost.epoch("shop"), "ann", "")
    assert pointer.epoch == lost.epoch("shop") == found.next_epoch
    write_copy(lost, tmp_path, "shop")
    again = SqliteRegistry(tmp_path / "again.sqlite")
    assert rebuild(again, tmp_path, "shop", "ann").next_epoch > pointer.epoch


def test_the_copy_is_written_only_into_the_store_that_holds_the_champion(registry, dataset, tmp_path):
    made = publish(registry, dataset, tmp_path / "store", 0, "2026-01-05")
    other = tmp_path / "other"
    (other / "shop").mkdir(parents=True)
    for store in (other, tmp_path / "nowhere", tmp_path / "store"):
        copy_beside(registry, store, "shop")
    assert not (other / "shop" / "registry.json").exists() and not (tmp_path / "nowhere").exists()
    assert read_copy(tmp_path / "store", "shop").aliases["champion"].digest == made.digest


def test_a_rebuild_tells_what_services_do_until_the_next_promotion(registry, dataset, tmp_path, capsys):
    made = publish(registry, dataset, tmp_path / "store", 0, "2026-01-05")
    copy_beside(registry, tmp_path / "store", "shop")
    commands.rebuild("shop", tmp_path / "store", str(tmp_path / "new.sqlite"))
    told = capsys.readouterr().out
    assert f"shop: 1 versions, 1 nights, champion {made.digest[:12]}" in told
    next_epoch = SqliteRegistry(tmp_path / "new.sqlite").state("shop").next_epoch
    assert f"until the next promotion or rollback, which is epoch {next_epoch}" in told and "shop.json" in told


def test_what_was_collected_after_the_copy_does_not_come_back(registry, dataset, tmp_path):
    for n in range(4):
        publish(registry, dataset, tmp_path, n, f"2026-01-0{n + 5}")
    write_copy(registry, tmp_path, "shop")
    assert len(collect(registry, tmp_path, "shop", 1, 0, "ann").removed) == 2
    lost = SqliteRegistry(tmp_path / "new.sqlite")
    rebuild(lost, tmp_path, "shop", "ann")
    assert lost.state("shop").collected == registry.state("shop").collected == {1, 2}


def test_without_a_copy_the_artifacts_alone_are_registered_and_none_is_live(registry, dataset, tmp_path):
    artifact(dataset, tmp_path, 0)
    found = rebuild(registry, tmp_path, "shop", "ann")
    assert (found.versions, found.nights, found.champion) == (1, 0, None)
    (tmp_path / "shop" / "registry.json").write_text("{")
    with pytest.raises(CopyUnreadable, match="move it away to rebuild"):
        read_copy(tmp_path, "shop")


def test_an_older_state_never_replaces_a_newer_copy(registry, dataset, tmp_path):
    publish(registry, dataset, tmp_path, 0, "2026-01-05")
    write_copy(registry, tmp_path, "shop")
    write_copy(SqliteRegistry(tmp_path / "empty.sqlite"), tmp_path, "shop")
    assert read_copy(tmp_path, "shop").epoch == 1
    assert json.loads((tmp_path / "shop" / "registry.json").read_text())["nights"]["2026-01-05"]["outcome"] == "live"


def test_collecting_keeps_what_is_used_young_or_new(registry, dataset, tmp_path):
    made = [publish(registry, dataset, tmp_path, n, f"2026-01-0{n + 5}") for n in range(5)]
    registry.announce("shop", "web-1", made[0].digest, 60)
    stray = artifact(dataset, tmp_path, 7).path
    half, copy = tmp_path / "shop" / ".building-1", tmp_path / "shop" / ".registry.json-1"
    half.mkdir()
    copy.write_text("{")
    assert collect(registry, tmp_path, "shop", 1, 3600, "ann").removed == ()
    hour_ago = time.time() - 3600
    for path in (*(m.path for m in made), stray, half, copy):
        os.utime(path, (hour_ago, hour_ago))
    found = collect(registry, tmp_path, "shop", 1, 60, "ann")
    assert set(found.removed) == {made[1].digest, made[2].digest, stray.name}
    assert set(found.in_use) == {made[0].digest, made[3].digest} and found.bytes > 0  # the service's; previous
    assert not list((tmp_path / "shop").glob(".*")) and not stray.exists()
    assert made[0].path.exists() and made[4].path.exists()
    assert registry.state("shop").collected == {2, 3}


def test_collecting_keeps_what_the_next_rollback_goes_to(registry, dataset, tmp_path):
    made = [publish(registry, dataset, tmp_path, n, f"2026-01-0{n + 5}") for n in range(4)]
    assert registry.rollback("shop", lambda path: None, "ann", "").number == 3
    found = collect(registry, tmp_path, "shop", 1, 0, "ann")
    assert found.removed == (made[0].digest,) and made[1].digest in found.in_use
    assert registry.rollback("shop", lambda path: None, "ann", "").number == 2
