"""What a registry of models promises, whichever store keeps it.

Versions are integers that never change; `champion` is what services load; promotion compares and sets a rising epoch,
so of two publishers that saw the same epoch one wins and the other is told. A rollback is a new epoch that names an old
digest. Everything that happened is in an append-only log.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from recsys_kd.errors import InputError, OutsideError
from recsys_kd.evaluate.gate import Verdict

ALIASES = ("champion", "challenger", "previous")
Verify = Callable[[Path], object]
"""Opens an artifact, raising where it must not serve."""


class UnknownModel(InputError):
    """No such model or version."""


class PromotionRefused(InputError):
    """The verdict does not allow this version to go live."""


class StaleEpoch(OutsideError):
    """Somebody else promoted in between."""


class NothingToRollBackTo(InputError):
    """The model had no earlier champion."""


class RegistryUnreachable(OutsideError):
    """The registry's store can't be used."""


@dataclass(frozen=True)
class Version:
    """One registered artifact."""

    model: str
    number: int
    digest: str
    path: str
    created: str
    lineage: dict[str, Any]


@dataclass(frozen=True)
class Pointer:
    """What an alias names, since which epoch."""

    alias: str
    number: int
    digest: str
    epoch: int


@dataclass(frozen=True)
class Event:
    """One line of the audit log."""

    at: str
    model: str
    action: str
    number: int
    digest: str
    epoch: int
    who: str
    why: str


class Registry(Protocol):
    """See the module's text; `model` is a recipe's name."""

    def register(self, model: str, digest: str, path: Path, lineage: dict[str, Any], who: str) -> Version:
        """Add an artifact as the next version; the same digest keeps its version."""
        ...

    def models(self) -> list[str]:
        """Return all models, by name."""
        ...

    def versions(self, model: str) -> list[Version]:
        """Return a model's versions, oldest first."""
        ...

    def version(self, model: str, number: int) -> Version:
        """Return one version. Raises: UnknownModel."""
        ...

    def pointer(self, model: str, alias: str) -> Pointer | None:
        """Return what an alias names, None where it names nothing."""
        ...

    def epoch(self, model: str) -> int:
        """Return the epoch of the last change of champion, 0 before the first."""
        ...

    def promote(self, model: str, number: int, verdict: Verdict, expected_epoch: int, who: str, why: str) -> Pointer:
        """Make a version champion. Raises: PromotionRefused, StaleEpoch, UnknownModel."""
        ...

    def rollback(self, model: str, verify: Verify, who: str, why: str) -> Pointer:
        """Make the previous champion champion again, after `verify` opened it. Raises: NothingToRollBackTo."""
        ...

    def audit(self, model: str) -> list[Event]:
        """Return everything that happened to a model, oldest first."""
        ...


def check_verdict(version: Version, verdict: Verdict, now: dt.datetime) -> None:
    """Raise PromotionRefused unless the verdict passed, names this digest and a log, and has not expired.

    A verdict whose word is not that of its own checks was not written by a gate.
    """
    what = f"{version.model} version {version.number}"
    if verdict.passed != all(c.passed for c in verdict.checks if c.gates):
        raise PromotionRefused(f"{what}: the verdict's checks do not say what it says; let the gate judge it again")
    if not verdict.measured_on:
        raise PromotionRefused(f"{what}: the verdict names no log that it was measured on; let the gate judge it again")
    if not verdict.passed:
        failed = "; ".join(c.sentence for c in verdict.checks if c.gates and not c.passed)
        raise PromotionRefused(f"{what}: the gate held it back: {failed}")
    if verdict.artifact_digest != version.digest:
        raise PromotionRefused(
            f"{what}: the verdict is about artifact {verdict.artifact_digest[:12]}, this is {version.digest[:12]}; "
            "evaluate this artifact"
        )
    if dt.datetime.fromisoformat(verdict.expires) <= now:
        raise PromotionRefused(f"{what}: the verdict expired on {verdict.expires}; evaluate the artifact again")
