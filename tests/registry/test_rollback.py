"""Which champion a rollback makes live again, on either store."""

import json
import sqlite3
from pathlib import Path

import pytest
from redis import Redis

from recsys_kd.registry.protocol import NothingToRollBackTo, Step, UnknownModel, VersionInUse
from recsys_kd.registry.store import rebuild, write_copy
from recsys_kd.registry.where import is_url, open_registry
from tests.registry.test_registry import add, night, verdict


def champions(registry, digests="abc"):
    for number, digest in enumerate(digests, start=1):
        add(registry, digest)
        registry.promote("shop", number, verdict(digest), number - 1, "ann", "")


def back(registry, to=None):
    return registry.rollback("shop", lambda path: None, "ann", "", to).number


def test_a_second_rollback_goes_further_back_and_not_to_what_was_just_rolled_back(registry):
    champions(registry)
    assert [back(registry), back(registry)] == [2, 1]
    words = "before version 1 there is no champion that was not rolled back from; --to VERSION makes one of 2, 3 live"
    with pytest.raises(NothingToRollBackTo, match=words):
        back(registry)
    assert registry.pointer("shop", "champion").number == 1


def test_a_promotion_after_a_rollback_goes_back_to_what_was_live_in_between(registry):
    champions(registry)
    back(registry)
    add(registry, "d")
    registry.promote("shop", 4, verdict("d"), 4, "ann", "")
    assert [back(registry), back(registry)] == [2, 1]  # 3 was found bad
    registry.promote("shop", 3, verdict("c"), 7, "ann", "judged again")
    registry.promote("shop", 1, verdict("a"), 8, "ann", "judged again")
    assert back(registry) == 3
    with pytest.raises(NothingToRollBackTo, match="before version 3 there is no champion that was not rolled back"):
        back(registry)  # 1 was live before 3, but was found bad after it


def test_a_rollback_may_name_any_version_that_was_champion_and_no_other(registry):
    champions(registry)
    add(registry, "d")
    back(registry)
    assert back(registry, to=3) == 3 and registry.pointer("shop", "previous").number == 2
    assert back(registry) == 2  # it was put above 2 again
    for to, words in ((4, "version 4 never was champion, so no gate let it"), (2, "version 2 is live already")):
        with pytest.raises(NothingToRollBackTo, match=words):
            back(registry, to)
    with pytest.raises(UnknownModel, match="no version 9 of model 'shop'"):
        back(registry, 9)


def test_a_rollback_passes_over_versions_whose_files_were_collected(registry):
    champions(registry, "abcd")
    registry.collect("shop", 2, "ann", "gc")
    assert [back(registry), back(registry)] == [3, 1]


def test_where_nothing_was_champion_before_it_is_said_what_makes_another_version_live(registry):
    add(registry, "a")
    with pytest.raises(
        NothingToRollBackTo, match=r"it has no champion yet; one goes live by its night, or by `recsys-kd "
    ):
        back(registry)
    champions(registry, "a")
    with pytest.raises(
        NothingToRollBackTo, match=r"another version goes live by its night, or by `recsys-kd gate POLIC"
    ):
        back(registry)


def test_a_rollback_drops_what_it_takes_away_wherever_it_stood_in_the_line(registry):
    champions(registry, "ab")
    registry.promote("shop", 1, verdict("a"), 2, "ann", "judged again")
    assert back(registry) == 2
    with pytest.raises(NothingToRollBackTo, match=r"before version 2 .*; --to VERSION makes one of 1 live again"):
        back(registry)  # version 1 was just found bad


def test_what_the_next_rollback_goes_to_is_not_collected(registry):
    champions(registry, "abcde")
    assert back(registry) == 4
    with pytest.raises(VersionInUse, match="shop version 3 is used by the next rollback; it stays"):
        registry.collect("shop", 3, "ann", "gc")
    registry.collect("shop", 2, "ann", "gc")
    assert [back(registry), back(registry)] == [3, 1]


@pytest.fixture
def restored(registry, address, tmp_path):
    """Return what loses the registry's whole store and restores it from the copy beside the artifacts."""

    def run(edit=lambda copy: copy):
        for version in registry.versions("shop"):
            (tmp_path / "shop" / version.digest).mkdir(parents=True, exist_ok=True)
        copy = write_copy(registry, tmp_path, "shop")
        copy.write_text(json.dumps(edit(json.loads(copy.read_text()))))
        if is_url(address):
            Redis.from_url(address).flushall()
        else:
            Path(address).unlink()
        empty = open_registry(address, tmp_path)
        assert empty.models() == []
        rebuild(empty, tmp_path, "shop", "ann")
        return empty

    return run


def without_steps(copy):
    """Return a copy as it was written before steps were kept."""
    return {key: value for key, value in copy.items() if key != "steps"}


def nights(registry, digests, first=5):
    for day, digest in enumerate(digests, start=first):
        night(registry, f"2026-01-0{day}", digest)


either_copy = pytest.mark.parametrize("edit", [dict, without_steps], ids=["a copy", "an older copy"])


@either_copy
def test_a_registry_restored_after_a_rollback_and_a_night_goes_back_as_the_lost_one_would(registry, restored, edit):
    nights(registry, "abc")
    assert back(registry) == 2
    nights(registry, "d", first=8)
    found = restored(edit)
    assert [back(found), back(found)] == [2, 1]  # 3 was found bad


@either_copy
def test_a_night_after_a_restore_while_rolled_back_goes_back_to_what_was_live_before_it(registry, restored, edit):
    nights(registry, "abc")
    assert back(registry) == 2
    found = restored(edit)
    nights(found, "d", first=8)
    assert [back(found), back(found)] == [2, 1]


@either_copy
def test_a_restored_registry_knows_the_champion_before_one_that_a_gate_promoted(registry, restored, edit):
    champions(registry)
    found = restored(edit)
    assert found.pointer("shop", "previous").number == 2
    assert [back(found), back(found, to=3), back(found)] == [2, 3, 2]


def test_a_restored_registry_knows_all_champions_that_a_gate_promoted(registry, restored):
    champions(registry, "abcd")
    found = restored()
    assert found.state("shop").steps == {n: Step(n, n, back=False) for n in (1, 2, 3, 4)} and back(found, to=1) == 1


@either_copy
def test_a_restored_registry_never_goes_back_to_what_a_rollback_took_away(registry, restored, edit):
    champions(registry)
    assert back(registry) == 2
    found = restored(edit)
    add(found, "d")
    found.promote("shop", 4, verdict("d"), found.epoch("shop"), "ann", "")
    assert back(found) == 2 and back(found, to=4) == 4


@either_copy
def test_a_registry_that_is_restored_twice_keeps_its_line(registry, restored, edit):
    nights(registry, "abc")
    assert back(registry) == 2
    restored(edit)
    assert back(restored()) == 1


def test_a_registry_from_before_steps_were_kept_knows_them_from_its_audit_log(registry, restored, address):
    champions(registry)
    back(registry)
    forget_steps(registry, address)
    assert registry.state("shop").steps == {}
    with pytest.raises(VersionInUse, match="version 1 is used by the next rollback"):
        registry.collect("shop", 1, "ann", "gc")
    found = restored()  # the copy has them, so the log may go
    assert back(found) == 1 and back(found, to=3) == 3


def forget_steps(registry, address):
    """Leave a registry as it was written before steps were kept."""
    if is_url(address):
        key = "recsys_kd:{shop}:state"
        registry.redis.hdel(key, *(k for k in registry.redis.hkeys(key) if k.startswith("step:")))
    else:
        with sqlite3.connect(address) as db:
            db.execute("DELETE FROM steps")
