"""What a gate decided, as it is written down: registries and services read it, and need none of what measured it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_DAYS = 31
"""For how long a verdict may speak: an artifact is judged against what is live, and that moves on."""


@dataclass(frozen=True)
class Check:
    """One condition, its measurement and limit; `gates` is False for what is only reported."""

    name: str
    passed: bool
    measured: float | None
    limit: float | None
    sentence: str
    gates: bool = True


@dataclass(frozen=True)
class Verdict:
    """Whether an artifact may be promoted, bound to its digest and the data it was measured on."""

    passed: bool
    checks: tuple[Check, ...]
    artifact_digest: str
    data_digest: str
    created: str
    expires: str
    log_digest: str = ""
    """Digest of the log it was measured on, where that is not the one that the artifact was made from."""
    policy: str = ""
    """Name and digest of the policy file it was judged by; "" in a night, whose recipe says what is asked."""
    compared: Mapping[str, str] = field(default_factory=dict)
    """Model's name in the policy -> the log column or artifact that it was measured as."""

    signature: str = ""
    """Of the judge's key over all the rest, hexadecimal; "" where none is configured."""

    @property
    def measured_on(self) -> str:
        """Digest of the log it was measured on."""
        return self.log_digest or self.data_digest

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def signed_bytes(self) -> bytes:
        """Return what is signed: everything but the signature, as canonical JSON."""
        plain = {k: v for k, v in self.to_json().items() if k != "signature"}
        return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Verdict":
        """Rebuild from `to_json`."""
        return Verdict(**{**data, "checks": tuple(Check(**c) for c in data["checks"])})
