"""Signatures: with a public key configured, only what its private key signed is served."""

import pytest

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.signing import PUBLIC_KEY, SIGNATURE, SIGNING_KEY, BadKey
from recsys_kd.runtime.ranker import Ranker
from tests.attacks.small import small_artifact


def private_pem(key):
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none).decode()


def public_pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@pytest.fixture
def key():
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def signed(key, tmp_path, monkeypatch):
    monkeypatch.setenv(SIGNING_KEY, private_pem(key))
    return small_artifact(tmp_path / "store").path


def refused(path):
    with pytest.raises(ArtifactRefused) as error:
        Ranker.open(path)
    assert error.value.check == "signature"
    return str(error.value)


def test_what_the_key_signed_is_served_with_keys_as_text_or_file(key, signed, tmp_path, monkeypatch):
    monkeypatch.setenv(PUBLIC_KEY, public_pem(key))
    Ranker.open(signed)
    (tmp_path / "public.pem").write_text(public_pem(key))
    monkeypatch.setenv(PUBLIC_KEY, str(tmp_path / "public.pem"))
    Ranker.open(signed)


def test_without_a_public_key_signed_and_unsigned_are_served(signed, tmp_path, monkeypatch):
    Ranker.open(signed)
    monkeypatch.delenv(SIGNING_KEY)
    Ranker.open(small_artifact(tmp_path / "other").path)


def test_unsigned_and_wrongly_signed_artifacts_are_refused(key, signed, tmp_path, monkeypatch):
    monkeypatch.setenv(PUBLIC_KEY, public_pem(ed25519.Ed25519PrivateKey.generate()))
    assert "not by the key" in refused(signed)
    monkeypatch.setenv(PUBLIC_KEY, public_pem(key))
    signature = (signed / SIGNATURE).read_bytes()
    (signed / SIGNATURE).write_bytes(signature[:-1])
    assert "63 bytes" in refused(signed)
    (signed / SIGNATURE).write_bytes(signature[:-1] + bytes([signature[-1] ^ 1]))
    assert "not by the key" in refused(signed)
    (signed / SIGNATURE).unlink()
    assert "not signed" in refused(signed)


def test_another_artifacts_signature_does_not_serve(key, signed, tmp_path, monkeypatch):
    monkeypatch.setenv(PUBLIC_KEY, public_pem(key))
    other = small_artifact(tmp_path / "store", seed=1).path
    (other / SIGNATURE).write_bytes((signed / SIGNATURE).read_bytes())
    assert "not by the key" in refused(other)


def test_writing_again_with_a_key_signs_what_was_unsigned(key, tmp_path, monkeypatch):
    plain = small_artifact(tmp_path).path
    assert not (plain / SIGNATURE).exists()
    monkeypatch.setenv(SIGNING_KEY, private_pem(key))
    monkeypatch.setenv(PUBLIC_KEY, public_pem(key))
    assert small_artifact(tmp_path).path == plain
    Ranker.open(plain)
    assert [p.name for p in (tmp_path / "shop").iterdir()] == [plain.name]


def test_keys_that_can_not_be_used_are_named(signed, tmp_path, monkeypatch):
    other = x25519.X25519PrivateKey.generate()
    for value, words in (
        ("nowhere.pem", "can't be read"),
        ("-----BEGIN x", "not a PEM"),
        (public_pem(other), "ed25519"),
    ):
        monkeypatch.setenv(PUBLIC_KEY, value)
        with pytest.raises(BadKey, match=words):
            Ranker.open(signed)
