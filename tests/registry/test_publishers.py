"""Publishers that claim, look, pause, are taken over, and come back, on both stores: a stale one never wins."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from hypothesis.strategies import booleans, integers, sampled_from

from recsys_kd.registry.protocol import NothingToRollBackTo, PromotionRefused, StaleEpoch, StalePublisher, UnknownModel
from recsys_kd.registry.where import open_registry
from tests.registry.test_registry import add, verdict

PUBLISHERS, NIGHTS = integers(0, 2), sampled_from(["2026-01-05", "2026-01-06", "2026-01-07"])


class Publishers(RuleBasedStateMachine):
    """A model of what is allowed beside the real registry; every publisher has a connection of its own."""

    def __init__(self, fresh):
        super().__init__()
        address = fresh()
        self.registries = [open_registry(address, Path()) for _ in range(3)]
        self.held = {}
        self.champion, self.epoch, self.count = None, 0, 0
        self.tokens, self.nights = {}, {}
        self.line = []  # champions that were not rolled back from

    @rule(who=PUBLISHERS, night=NIGHTS)
    def begin(self, who, night):
        self.count += 1
        registry = self.registries[who]
        claim = registry.claim("shop", night)
        assert claim.token > self.tokens.get(night, 0)
        self.tokens[night] = claim.token
        self.held[who] = (add(registry, f"{who}-{self.count}"), registry.epoch("shop"), claim)

    @precondition(lambda self: self.held)
    @rule(who=PUBLISHERS, passed=booleans())
    def publish(self, who, passed):
        if who not in self.held:
            return
        version, seen, claim = self.held[who]
        try:
            given = verdict(version.digest, passed)
            record = self.registries[who].publish("shop", version.number, given, seen, claim, "p")
        except StalePublisher:
            assert claim.token != self.tokens[claim.night] and claim.night not in self.nights
        except StaleEpoch:
            assert seen != self.epoch and passed
        else:
            self._published(record, version, seen, claim, passed)

    def _published(self, record, version, seen, claim, passed):
        if claim.night in self.nights:
            assert record == self.nights[claim.night]
            return
        assert claim.token == self.tokens[claim.night]
        newer = any(n > claim.night and p.outcome == "live" for n, p in self.nights.items())
        assert record.outcome == ("held" if not passed else "late" if newer else "live")
        self.nights[claim.night] = record
        if record.outcome == "live":
            assert seen == self.epoch
            self._goes_live(version.digest)

    def _goes_live(self, digest):
        self.champion, self.epoch = digest, self.epoch + 1
        self.line.append(digest)

    @rule(who=PUBLISHERS)
    def promote_by_hand(self, who):
        if who not in self.held:
            return
        version, seen, _ = self.held[who]
        try:
            self.registries[who].promote("shop", version.number, verdict(version.digest), seen, "p", "")
        except StaleEpoch:
            assert seen != self.epoch
        else:
            self._goes_live(version.digest)

    @rule(who=PUBLISHERS)
    def roll_back(self, who):
        while self.line and self.line[-1] == self.champion:
            self.line.pop()
        try:
            pointer = self.registries[who].rollback("shop", lambda path: None, "p", "")
        except (NothingToRollBackTo, UnknownModel):
            assert not self.line
            self.line = [self.champion] if self.champion else []
            return
        assert pointer.digest == self.line[-1]
        self.champion, self.epoch = pointer.digest, self.epoch + 1
        assert pointer.epoch == self.epoch

    @rule(who=PUBLISHERS)
    def try_another_artifacts_verdict(self, who):
        if who not in self.held:
            return
        version, seen, _ = self.held[who]
        with pytest.raises(PromotionRefused):
            self.registries[who].promote("shop", version.number, verdict("other"), seen, "eve", "")

    @invariant()
    def every_reader_sees_the_last_winner_and_every_night_once(self):
        for registry in self.registries[:2]:
            state = registry.state("shop")
            champion = state.aliases.get("champion")
            assert (champion and champion.digest) == self.champion and state.epoch == self.epoch
            assert state.nights == self.nights
        published = [e.why for e in registry.audit("shop") if e.action.startswith("publish")]
        assert sorted(published) == sorted(f"night {n}" for n in self.nights)


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_stale_publisher_never_wins(store, tmp_path, request):
    def fresh():
        if store == "sqlite":
            return tempfile.mkdtemp(dir=tmp_path) + "/registry.sqlite"
        server = request.getfixturevalue("redis_server")
        server.client().flushall()
        return server.url()

    run_state_machine_as_test(
        lambda: Publishers(fresh),
        settings=settings(
            max_examples=30 if store == "redis" else 12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
