"""Signatures on verdicts, by the keys that sign artifacts: whoever judges signs, whoever promotes checks.

A verdict's checks are the judge's word, and a registry can't measure again. Without keys it refuses what contradicts
itself, is about another artifact, or has expired; a forger who writes all of a sound verdict anew is found by its
signature alone. See `artifact.signing` for the keys.
"""

from dataclasses import replace

from recsys_kd.artifact.signing import sign, signature_fault
from recsys_kd.evaluate.verdict import Verdict


def sealed(verdict: Verdict) -> Verdict:
    """Return a verdict with its signature; as it is where no signing key is configured. Raises: BadKey."""
    signature = sign(verdict.signed_bytes())
    return verdict if signature is None else replace(verdict, signature=signature.hex())


def seal_fault(verdict: Verdict) -> str | None:
    """Return what is wrong with a verdict's signature under the configured public key, or None. Raises: BadKey."""
    try:
        signature = bytes.fromhex(verdict.signature) or None
    except ValueError:
        return "its signature is not hexadecimal"
    return signature_fault(verdict.signed_bytes(), signature)
