"""Optional ed25519 signatures over the manifest, which names the hash of everything else.

Keys are PEM, in a file or as text, named by the environment:
RECSYS_KD_SIGNING_KEY: the private key; artifacts that are written are signed with it.
RECSYS_KD_PUBLIC_KEY: the public key; artifacts that it did not sign are then refused.
`openssl genpkey -algorithm ed25519 -out key.pem` makes a key, `openssl pkey -in key.pem -pubout` prints its public one.
Needs the package `cryptography` (extra `sign`).
"""

import os
from pathlib import Path
from typing import Any

from recsys_kd.errors import InputError

SIGNING_KEY, PUBLIC_KEY = "RECSYS_KD_SIGNING_KEY", "RECSYS_KD_PUBLIC_KEY"
SIGNATURE = "manifest.sig"
SIZE = 64


class BadKey(InputError):
    """A key that the environment names can't be used."""


def _pem(variable: str) -> bytes | None:
    value = os.environ.get(variable)
    if not value:
        return None
    if value.lstrip().startswith("-----BEGIN"):
        return value.encode()
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise BadKey(f"{variable}={value}: can't be read ({error.strerror}); give a PEM file, or its text") from None


def _load(variable: str, private: bool) -> Any:
    """Return the key that a variable names, or None where it is not set. Raises: BadKey."""
    pem = _pem(variable)
    if pem is None:
        return None
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    except ImportError:
        raise BadKey(f"{variable} is set, but signatures need `pip install recsys-kd[sign]`") from None
    try:
        if private:
            key: Any = serialization.load_pem_private_key(pem, password=None)
        else:
            key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{variable}: not a PEM key without password ({str(error)[:80]})") from None
    if not isinstance(key, Ed25519PrivateKey if private else Ed25519PublicKey):
        raise BadKey(f"{variable}: a key of another kind than ed25519; `openssl genpkey -algorithm ed25519` makes one")
    return key


def signature_bytes() -> int:
    """Return how many bytes a signature adds to an artifact, 0 where no signing key is configured. Raises: BadKey."""
    return 0 if _load(SIGNING_KEY, private=True) is None else SIZE


def sign(manifest: bytes) -> bytes | None:
    """Return the signature [64 bytes] of a manifest, or None where no signing key is configured. Raises: BadKey."""
    key = _load(SIGNING_KEY, private=True)
    return None if key is None else bytes(key.sign(manifest))


def signature_fault(manifest: bytes, signature: bytes | None) -> str | None:
    """Return what is wrong with a manifest's signature under the configured public key, or None. Raises: BadKey."""
    key = _load(PUBLIC_KEY, private=False)
    if key is None:
        return None
    if signature is None:
        return f"it is not signed, and {PUBLIC_KEY} asks for signatures"
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return f"its signature is not by the key of {PUBLIC_KEY}"
    return None
