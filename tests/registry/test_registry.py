"""The registry's promises. Each test takes the store from a fixture, so that every store is held to the same ones."""

import datetime as dt
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import booleans, integers

from recsys_kd.errors import OutsideError
from recsys_kd.evaluate.gate import Check, Verdict
from recsys_kd.registry.protocol import NothingToRollBackTo, PromotionRefused, StaleEpoch, UnknownModel
from recsys_kd.registry.sqlite import SqliteRegistry

TOMORROW = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()


def verdict(digest, passed=True, expires=TOMORROW):
    check = Check("auc", passed, 0.1, 0.2, "served auc may fall outside the margin")
    return Verdict(passed, (check,), digest, "d", "2026-01-01", expires)


@pytest.fixture
def registry(tmp_path):
    return SqliteRegistry(tmp_path / "store" / "registry.sqlite")


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
    ],
)
def test_only_a_passing_verdict_about_this_artifact_promotes(registry, given, words):
    add(registry, "a")
    with pytest.raises(PromotionRefused, match=words):
        registry.promote("shop", 1, given, 0, "ann", "")
    assert registry.pointer("shop", "champion") is None


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
        registry.rollback("shop", broken, "ann", "again")
    assert registry.pointer("shop", "champion").epoch == 3
    with pytest.raises(NothingToRollBackTo):
        registry.rollback("nobody", opened.append, "ann", "")


def test_the_audit_log_tells_everything_and_can_not_be_changed(registry):
    add(registry, "a")
    registry.promote("shop", 1, verdict("a"), 0, "ann", "first night")
    events = registry.audit("shop")
    assert [(e.action, e.epoch, e.who, e.why) for e in events] == [
        ("register", 0, "ann", ""), ("promote", 1, "ann", "first night"),
    ]  # fmt: skip
    db = sqlite3.connect(registry.path)
    for attack in ("DELETE FROM audit", "UPDATE audit SET who = 'eve'", "UPDATE versions SET digest = 'evil'"):
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(attack)
    db.close()


def test_of_many_processes_that_saw_the_same_epoch_one_wins(registry, tmp_path):
    for digest in "abcd":
        add(registry, digest)
    code = (
        "import sys; from recsys_kd.registry.sqlite import *; from recsys_kd.registry.protocol import StaleEpoch; "
        "from pathlib import Path; from recsys_kd.evaluate.gate import Verdict\n"
        "n, digest = int(sys.argv[2]), sys.argv[3]\n"
        f"v = Verdict(True, (), digest, 'd', '', {TOMORROW!r})\n"
        "try:\n    SqliteRegistry(Path(sys.argv[1])).promote('shop', n, v, 0, 'p', ''); print('won')\n"
        "except StaleEpoch:\n    print('lost')"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(registry.path), str(i), d], stdout=subprocess.PIPE, text=True)
        for i, d in enumerate("abcd", start=1)
    ]
    assert sorted(r.communicate()[0].strip() for r in runs) == ["lost", "lost", "lost", "won"]
    assert registry.epoch("shop") == 1


def test_a_store_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideError, match="file"):
        SqliteRegistry(tmp_path / "file" / "registry.sqlite")


class Publishers(RuleBasedStateMachine):
    """Publishers that remember an epoch, pause, and come back: a stale one never moves the champion."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.registry = SqliteRegistry(Path(self.folder.name) / "r.sqlite")
        self.seen = {}
        self.champion, self.epoch, self.count = None, 0, 0

    def teardown(self):
        self.folder.cleanup()

    @rule(who=integers(0, 2))
    def look(self, who):
        self.count += 1
        version = add(self.registry, f"{who}-{self.count}")
        self.seen[who] = (version, self.registry.epoch("shop"))

    @rule(who=integers(0, 2), passed=booleans())
    def publish(self, who, passed):
        if who not in self.seen:
            return
        version, epoch = self.seen[who]
        try:
            self.registry.promote("shop", version.number, verdict(version.digest, passed), epoch, "p", "")
        except PromotionRefused:
            assert not passed
        except StaleEpoch:
            assert epoch != self.epoch
        else:
            assert passed and epoch == self.epoch
            self.champion, self.epoch = version.digest, self.epoch + 1

    @invariant()
    def champion_is_the_last_winner(self):
        pointer = self.registry.pointer("shop", "champion")
        assert (pointer and pointer.digest) == self.champion


Publishers.TestCase.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)
TestPublishers = Publishers.TestCase
