"""Verdicts that are signed: whoever changes one, or writes one anew, has not the judge's key."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from recsys_kd.artifact.signing import PUBLIC_KEY, SIGNING_KEY
from recsys_kd.evaluate.verdict import Verdict
from recsys_kd.registry.protocol import PromotionRefused
from recsys_kd.registry.seal import sealed
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.artifact.test_signing import private_pem, public_pem
from tests.registry.test_registry import add, verdict


def test_a_verdict_that_the_judges_key_did_not_sign_promotes_nothing(tmp_path, monkeypatch):
    key, registry = ed25519.Ed25519PrivateKey.generate(), SqliteRegistry(tmp_path / "registry.sqlite")
    add(registry, "a")
    assert sealed(verdict("a")) == verdict("a")  # without a key nothing is signed, and nothing asked for
    monkeypatch.setenv(SIGNING_KEY, private_pem(key))
    monkeypatch.setenv(PUBLIC_KEY, public_pem(key))
    sound = Verdict.from_json(sealed(verdict("a")).to_json())
    for given, words in [
        (verdict("a"), "it is not signed, and RECSYS_KD_PUBLIC_KEY asks for signatures"),
        (replace(sound, log_digest="f" * 64), "its signature is not by the key of RECSYS_KD_PUBLIC_KEY"),
        (replace(sound, signature="no"), "its signature is not hexadecimal"),
    ]:
        with pytest.raises(PromotionRefused, match=f"the verdict can't be trusted: {words}"):
            registry.promote("shop", 1, given, 0, "eve", "")
    assert registry.promote("shop", 1, sound, 0, "ann", "").number == 1


def test_a_night_is_not_held_by_a_verdict_that_the_judge_did_not_sign_or_that_contradicts_itself(tmp_path, monkeypatch):
    key, registry = ed25519.Ed25519PrivateKey.generate(), SqliteRegistry(tmp_path / "registry.sqlite")
    add(registry, "a")
    claim = registry.claim("shop", "2026-01-05")
    passing = verdict("a")
    monkeypatch.setenv(SIGNING_KEY, private_pem(key))
    with pytest.raises(PromotionRefused, match="the verdict's checks do not say what it says"):
        registry.publish("shop", 1, replace(passing, passed=False), 0, claim, "eve")
    monkeypatch.setenv(PUBLIC_KEY, public_pem(key))
    failed = replace(passing, passed=False, checks=(replace(passing.checks[0], passed=False),))
    with pytest.raises(PromotionRefused, match="it is not signed"):
        registry.publish("shop", 1, failed, 0, claim, "eve")
    assert registry.publish("shop", 1, sealed(failed), 0, claim, "ann").outcome == "held"
