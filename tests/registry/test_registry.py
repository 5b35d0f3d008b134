"""The registry's promises. Each test takes the store from a fixture, so that every store is held to the same ones."""

import datetime as dt
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.errors import OutsideError
from recsys_kd.evaluate.gate import Check, Verdict
from recsys_kd.registry.compare import differences
from recsys_kd.registry.protocol import (
    ArtifactCollected,
    PromotionRefused,
    RegistryNotEmpty,
    StaleEpoch,
    StalePublisher,
    UnknownModel,
    VersionInUse,
)
from recsys_kd.registry.where import open_registry

TOMORROW = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()


def verdict(digest, passed=True, expires=TOMORROW):
    check = Check("auc", passed, 0.1, 0.2, "served auc may fall outside the margin")
    return Verdict(passed, (check,), digest, "d", "2026-01-01", expires)


def add(registry, digest, model="shop"):
    return registry.register(model, digest, Path("/a") / digest, {"data": "x"}, "ann")


def test_versions_count_up_and_a_digest_keeps_its_version(registry):
    assert [add(registry, d).number for d in ("a", "b", "a")] == [1, 2, 1]
    assert add(registry, "a", "other").number == 1
    assert registry.models() == ["other", "shop"]
    assert [v.digest for v in registry.versions("shop")] == ["a", "b"]
    assert registry.version("shop", 2).lineage == {"data": "x"}
    with pytest.raises(UnknownModel, match="no version 9 of model 'shop'"):
        registry.version("shop", 9)


def test_promotion_moves_champion_and_keeps_previous(registry):
    for number, digest in enumerate("ab", start=1):
        add(registry, digest)
        pointer = registry.promote("shop", number, verdict(digest), number - 1, "ann", "night")
        assert (pointer.digest, pointer.epoch) == (digest, number)
    assert registry.pointer("shop", "champion").number == 2
    assert registry.pointer("shop", "previous").number == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (verdict("a", passed=False), "the gate held it back: served auc may fall outside the margin"),
        (verdict("b"), "the verdict is about artifact b"),
        (verdict("a", expires="2020-01-01T00:00:00+00:00"), "expired"),
        (verdict("a", expires="2999-01-01T00:00:00+00:00"), "is more than 31 days away, and no gate gives more"),
        (verdict("a", expires=TOMORROW.split("+")[0]), "is no time with a zone, such as 2026-01-31T12:00:00"),
        (verdict("a", expires="tomorrow"), "expiry 'tomorrow' is no time with a zone"),
        (replace(verdict("a"), checks=()), "the verdict rests on no check that decides"),
        (replace(verdict("a"), checks=(Check("auc", False, 0.1, 0.2, "", gates=False),)), "rests on no check that dec"),
    ],
)
def test_only_a_passing_verdict_about_this_artifact_promotes(registry, given, words):
    add(registry, "a")
    with pytest.raises(PromotionRefused, match=words):
        registry.promote("shop", 1, given, 0, "ann", "")
    assert registry.pointer("shop", "champion") is None


def test_the_state_keeps_every_change_of_champion(registry):
    night(registry, "2026-01-05", "a")
    add(registry, "b")
    registry.promote("shop", 2, verdict("b"), 1, "ann", "")
    night(registry, "2026-01-06", "c", passed=False)
    registry.rollback("shop", lambda path: None, "ann", "")
    steps = [(s.epoch, s.number, s.back) for s in registry.state("shop").steps.values()]
    assert sorted(steps) == [(1, 1, False), (2, 2, False), (3, 1, True)]


def test_a_promotion_decided_at_an_older_epoch_is_refused(registry):
    add(registry, "a")
    add(registry, "b")
    registry.promote("shop", 1, verdict("a"), 0, "ann", "")
    with pytest.raises(StaleEpoch, match="epoch is 1, this promotion was decided at 0"):
        registry.promote("shop", 2, verdict("b"), 0, "bob", "")
    assert registry.pointer("shop", "champion").digest == "a"


def test_rollback_is_a_new_epoch_and_verifies_first(registry):
    for number, digest in enumerate("ab", start=1):
        add(registry, digest)
        registry.promote("shop", number, verdict(digest), number - 1, "ann", "")
    opened = []
    pointer = registry.rollback("shop", opened.append, "ann", "bad clicks")
    assert (pointer.digest, pointer.epoch) == ("a", 3) and opened == [Path("/a/a")]
    assert registry.pointer("shop", "previous").digest == "b"

    def broken(path):
        raise OutsideError(f"{path}: broken")

    with pytest.raises(OutsideError, match="broken"):
        registry.rollback("shop", broken, "ann", "again", to=2)
    assert registry.pointer("shop", "champion").epoch == 3
    with pytest.raises(UnknownModel, match=r"no model 'nobody' is registered here; see `recsys-kd registry list`"):
        registry.rollback("nobody", opened.append, "ann", "")


def test_a_rollback_to_a_folder_of_another_artifact_is_refused(registry):
    registry.register("shop", "a", Path("/a/c"), {}, "ann")
    add(registry, "b")
    for number, digest in enumerate("ab", start=1):
        registry.promote("shop", number, verdict(digest), number - 1, "ann", "")
    with pytest.raises(ArtifactRefused, match=r"/a/c: .*version 1 is artifact a, this folder is another"):
        registry.rollback("shop", lambda path: None, "ann", "")
    assert registry.pointer("shop", "champion").digest == "b"


def test_the_audit_log_tells_everything_and_can_not_be_changed(registry):
    add(registry, "a")
    registry.promote("shop", 1, verdict("a"), 0, "ann", "first night")
    events = registry.audit("shop")
    assert [(e.action, e.epoch, e.who, e.why) for e in events] == [
        ("register", 0, "ann", ""), ("promote", 1, "ann", "first night"),
    ]  # fmt: skip


RACE = """
import sys
from pathlib import Path
from recsys_kd.evaluate.gate import Check, Verdict
from recsys_kd.registry.protocol import StaleEpoch
from recsys_kd.registry.where import open_registry

where, number, digest, expires = sys.argv[1:]
verdict = Verdict(True, (Check("auc", True, 0.1, 0.2, "within"),), digest, "d", "", expires)
try:
    open_registry(where, Path()).promote("shop", int(number), verdict, 0, "p", "")
    print("won")
except StaleEpoch:
    print("lost")
"""


def test_of_many_processes_that_saw_the_same_epoch_one_wins(registry, address):
    for digest in "abcd":
        add(registry, digest)
    runs = [
        subprocess.Popen([sys.executable, "-c", RACE, address, str(i), d, TOMORROW], stdout=subprocess.PIPE, text=True)
        for i, d in enumerate("abcd", start=1)
    ]
    assert sorted(r.communicate()[0].strip() for r in runs) == ["lost", "lost", "lost", "won"]
    assert registry.epoch("shop") == 1


def test_a_service_that_reads_meanwhile_sees_whole_states_only(registry, address, tmp_path):
    for digest in "ab":
        add(registry, digest)
    registry.promote("shop", 1, verdict("a"), 0, "ann", "")
    registry.promote("shop", 2, verdict("b"), 1, "ann", "")
    seen, stop = [], threading.Event()

    def read():
        reader = open_registry(address, tmp_path)
        while not stop.is_set():
            aliases = reader.state("shop").aliases
            seen.append((aliases["champion"].number, aliases["previous"].number, aliases["champion"].epoch))

    thread = threading.Thread(target=read)
    thread.start()
    for turn in range(40):
        registry.rollback("shop", lambda path: None, "ann", "", to=1 + turn % 2)
    stop.set()
    thread.join()
    assert registry.epoch("shop") == 42 and len(seen) > 1
    assert all((1 if epoch % 2 else 2, 2 if epoch % 2 else 1) == (now, before) for now, before, epoch in seen)


def night(registry, date, digest, passed=True, claim=None, seen=None):
    version = add(registry, digest)
    claim = claim or registry.claim("shop", date)
    seen = registry.epoch("shop") if seen is None else seen
    return registry.publish("shop", version.number, verdict(digest, passed), seen, claim, "ann")


def test_a_night_is_recorded_once_with_its_promotion_and_never_changes(registry):
    first = night(registry, "2026-01-05", "a")
    assert (first.outcome, first.number, first.epoch) == ("live", 1, 1)
    assert night(registry, "2026-01-05", "b") == first and registry.pointer("shop", "champion").digest == "a"
    held = night(registry, "2026-01-06", "c", passed=False)
    assert (held.outcome, held.epoch) == ("held", 1)
    assert night(registry, "2026-01-07", "d").outcome == "live"
    late = night(registry, "2026-01-04", "e")
    assert late.outcome == "late" and registry.pointer("shop", "champion").digest == "d"
    assert sorted(registry.state("shop").nights) == ["2026-01-04", "2026-01-05", "2026-01-06", "2026-01-07"]
    assert [e.action for e in registry.audit("shop") if e.action.startswith("publish")] == [
        "publish", "publish-held", "publish", "publish-late",
    ]  # fmt: skip


def test_a_publisher_that_was_paused_and_taken_over_does_not_publish(registry):
    paused = registry.claim("shop", "2026-01-05")
    later = registry.claim("shop", "2026-01-05")
    assert later.token > paused.token
    with pytest.raises(StalePublisher, match=rf"night 2026-01-05: this publisher's claim {paused.token} is void"):
        night(registry, "2026-01-05", "a", claim=paused)
    assert registry.state("shop").nights == {}
    assert night(registry, "2026-01-05", "b", claim=later).digest == "b"
    with pytest.raises(StaleEpoch, match="epoch is 1, this promotion was decided at 0"):
        night(registry, "2026-01-06", "c", seen=0)


def test_a_night_whose_claim_is_void_registers_nothing(registry):
    """A registry that was emptied knows no claim either: a version in it would keep it from being restored."""
    claim = registry.claim("shop", "2026-01-05")
    registry.claim("shop", "2026-01-05")
    with pytest.raises(StalePublisher, match=rf"claim {claim.token} is void"):
        registry.register("shop", "a", Path("a"), {}, "ann", claim)
    assert registry.state("shop").versions == {} and registry.audit("shop") == []
    latest = registry.claim("shop", "2026-01-05")
    assert registry.register("shop", "a", Path("a"), {}, "ann", latest).number == 1


def test_a_verdict_about_another_artifact_publishes_nothing_not_even_held_back(registry):
    version, claim = add(registry, "a"), registry.claim("shop", "2026-01-05")
    for passed in (True, False):
        with pytest.raises(PromotionRefused, match="the verdict is about artifact b"):
            registry.publish("shop", version.number, verdict("b", passed), 0, claim, "ann")
    assert registry.state("shop").nights == {}


def test_a_challenger_can_be_named_and_champion_can_not(registry):
    add(registry, "a")
    assert registry.name("shop", "challenger", 1, "ann", "try it").number == 1
    assert registry.pointer("shop", "challenger").digest == "a"
    with pytest.raises(PromotionRefused, match="`champion` moves by promote and rollback only"):
        registry.name("shop", "champion", 1, "ann", "")


def test_what_an_alias_or_a_live_service_names_is_not_collected(registry):
    for number, digest in enumerate("abcd", start=1):
        add(registry, digest)
        registry.promote("shop", number, verdict(digest), number - 1, "ann", "")
    registry.announce("shop", "web-1", "a", 60)
    assert registry.serving("shop") == {"web-1": "a"}
    for number, user in ((4, "champion"), (3, "previous"), (1, "web-1")):
        with pytest.raises(VersionInUse, match=f"version {number} is used by {user}"):
            registry.collect("shop", number, "ann", "gc")
    registry.collect("shop", 2, "ann", "gc")
    with pytest.raises(ArtifactCollected, match="version 2: its files were collected"):
        registry.promote("shop", 2, verdict("b"), 4, "ann", "")
    assert add(registry, "b").number == 2  # made again
    assert registry.promote("shop", 2, verdict("b"), 4, "ann", "").epoch == 5


def test_a_state_is_restored_into_an_empty_registry_only(registry, tmp_path):
    night(registry, "2026-01-05", "a")
    night(registry, "2026-01-06", "b")
    state = registry.state("shop")
    lost = open_registry(None, tmp_path / "other")
    lost.restore("shop", state, "ann")
    assert lost.state("shop") == state and lost.audit("shop")[0].action == "restore"
    with pytest.raises(RegistryNotEmpty, match="holds 2 version"):
        lost.restore("shop", state, "ann")
    assert lost.claim("shop", "2026-01-06").token > state.tokens["2026-01-06"]


def test_differences_name_what_changed_in_the_lineage(registry):
    registry.register("shop", "a", Path("/a"), {"data": "x", "plan": {"bits": 8, "width": 4}}, "ann")
    registry.register("shop", "b", Path("/b"), {"data": "x", "plan": {"bits": 4}, "parents": ["a"]}, "ann")
    found = differences(registry.version("shop", 1), registry.version("shop", 2))
    assert found["lineage.plan.bits"] == (8, 4) and found["lineage.plan.width"] == (4, None)
    assert found["lineage.parents"] == (None, ["a"]) and "lineage.data" not in found
