"""What a registry of models promises, whichever store keeps it.

Versions are integers that never change; `champion` is what services load; promotion compares and sets a rising epoch,
so of two publishers that saw the same epoch one wins and the other is told. A rollback is a new epoch that names an old
digest. Everything that happened is in an append-only log.

A night that runs on workers publishes under a `Claim`: a token that every later claim of the same night makes void, so
a publisher that was paused and taken over can't publish. The night is recorded in the same step as its promotion:
recorded once, it never changes. `rules` holds what is allowed; the stores only keep it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from recsys_kd.errors import InputError, OutsideError
from recsys_kd.evaluate.verdict import Verdict

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
    """No earlier champion can be made live, or not the one that was asked for."""


class RegistryUnreachable(OutsideError):
    """The registry's store can't be used."""


class StalePublisher(OutsideError):
    """A later claim of the night made this one void."""


class VersionInUse(InputError):
    """An alias or a live service names the version, or the next rollback goes to it."""


class ArtifactCollected(InputError):
    """The version's files were collected."""


class RegistryNotEmpty(InputError):
    """The registry already knows the model that is to be restored."""


REBUILT = "rebuilt"
"""What a rebuild claims instead of a night.

Claims grow with the clock, in ms, and epochs count promotions: the epochs after it are above any that was lost, and
services, which follow no registry that went back in time, follow the next champion.
"""


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


@dataclass(frozen=True)
class Claim:
    """The right to publish a night (ISO date), until somebody claims it again."""

    night: str
    token: int


Outcome = Literal["live", "late", "held"]
"""Promoted; passed, but a newer night was live already; held back by the gate."""


@dataclass(frozen=True)
class Publication:
    """What a night came to: written once, never changed."""

    night: str
    number: int
    digest: str
    epoch: int
    outcome: Outcome
    at: str


@dataclass(frozen=True)
class Step:
    """One change of champion: to which version, and whether a rollback made it."""

    epoch: int
    number: int
    back: bool


@dataclass(frozen=True)
class State:
    """Everything about one model but its audit log, as of one moment."""

    versions: dict[int, Version] = field(default_factory=dict)
    aliases: dict[str, Pointer] = field(default_factory=dict)
    nights: dict[str, Publication] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    """Night -> the token of its latest claim; `REBUILT` -> the time in ms of the rebuild, where there was one."""
    collected: frozenset[int] = frozenset()
    """Versions whose files may be gone."""
    steps: dict[int, Step] = field(default_factory=dict)
    """Epoch -> its change of champion; `history` fills in those from before they were kept."""

    @property
    def epoch(self) -> int:
        """The epoch of the last change of champion, 0 before the first."""
        champion = self.aliases.get("champion")
        return 0 if champion is None else champion.epoch

    @property
    def next_epoch(self) -> int:
        """The epoch of the next change of champion, above all that a registry which was lost may have given."""
        return max(self.epoch, self.tokens.get(REBUILT, 0)) + 1


class Registry(Protocol):
    """See the module's text; `model` is a recipe's name."""

    def register(
        self, model: str, digest: str, path: Path, lineage: dict[str, Any], who: str, claim: Claim | None = None
    ) -> Version:
        """Add an artifact as the next version; the same digest keeps its version.

        With the claim of a night only while that is the latest. Raises: StalePublisher.
        """
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

    def rollback(self, model: str, verify: Verify, who: str, why: str, to: int | None = None) -> Pointer:
        """Make the champion before this one that was not rolled back from champion again, after `verify` opened it.

        `to` names any version that was champion instead. Raises: UnknownModel, NothingToRollBackTo.
        """
        ...

    def audit(self, model: str) -> list[Event]:
        """Return everything that happened to a model, oldest first."""
        ...

    def state(self, model: str) -> State:
        """Return the whole of a model as of one moment; empty where it is unknown."""
        ...

    def name(self, model: str, alias: str, number: int, who: str, why: str) -> Pointer:
        """Let `challenger` name a version. Raises: UnknownModel, ArtifactCollected."""
        ...

    def claim(self, model: str, night: str) -> Claim:
        """Claim a night; every earlier claim of it is void from now on."""
        ...

    def publish(self, model: str, number: int, verdict: Verdict, seen: int, claim: Claim, who: str) -> Publication:
        """Record what a night came to, and promote its version if it passed and no newer night is live.

        `seen` is the epoch that the verdict was made at. A night that is recorded already is returned as it is.
        Raises: StalePublisher, StaleEpoch, PromotionRefused, UnknownModel.
        """
        ...

    def announce(self, model: str, service: str, digest: str, seconds: int) -> None:
        """Say that a service has an artifact loaded, good for some seconds."""
        ...

    def serving(self, model: str) -> dict[str, str]:
        """Return what live services announced: name -> digest."""
        ...

    def collect(self, model: str, number: int, who: str, why: str) -> None:
        """Mark a version as collected: its files may go, it can't become champion.

        Raises: VersionInUse where an alias or live service names it, or the next rollback goes to it.
        """
        ...

    def restore(self, model: str, state: State, who: str) -> None:
        """Take over a model's state from elsewhere. Raises: RegistryNotEmpty."""
        ...
