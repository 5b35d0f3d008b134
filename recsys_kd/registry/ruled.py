"""The registry's protocol on any store that can read a model's state whole and change it in one step."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from recsys_kd.evaluate.verdict import Verdict
from recsys_kd.registry import history, rules
from recsys_kd.registry.protocol import Claim, Event, Pointer, Publication, State, Verify, Version
from recsys_kd.registry.rules import Change

T = TypeVar("T")


class RuledRegistry(ABC):
    """A `Registry`; subclasses keep the state. See `protocol.Registry` for what each method promises."""

    @abstractmethod
    def models(self) -> list[str]:
        """Return all models, by name."""

    @abstractmethod
    def state(self, model: str) -> State:
        """Return the whole of a model as of one moment."""

    @abstractmethod
    def audit(self, model: str) -> list[Event]:
        """Return everything that happened to a model, oldest first."""

    @abstractmethod
    def announce(self, model: str, service: str, digest: str, seconds: int) -> None:
        """Say that a service has an artifact loaded, good for some seconds."""

    @abstractmethod
    def serving(self, model: str) -> dict[str, str]:
        """Return what live services announced."""

    @abstractmethod
    def _change(self, model: str, decide: Callable[[State], tuple[Change, T]]) -> T:
        """Run `decide` on the state and write its change, with nothing of anybody else in between."""

    def register(
        self, model: str, digest: str, path: Path, lineage: dict[str, Any], who: str, claim: Claim | None = None
    ) -> Version:
        """Add an artifact as the next version; the same digest keeps its version. Raises: StalePublisher."""
        return self._change(model, lambda s: rules.register(s, model, digest, path, lineage, who, claim))

    def versions(self, model: str) -> list[Version]:
        """Return a model's versions, oldest first."""
        return [v for _, v in sorted(self.state(model).versions.items())]

    def version(self, model: str, number: int) -> Version:
        """Return one version. Raises: UnknownModel."""
        return rules.existing(self.state(model), model, number)

    def pointer(self, model: str, alias: str) -> Pointer | None:
        """Return what an alias names, None where it names nothing."""
        return self.state(model).aliases.get(alias)

    def epoch(self, model: str) -> int:
        """Return the epoch of the last change of champion, 0 before the first."""
        return self.state(model).epoch

    def promote(self, model: str, number: int, verdict: Verdict, expected_epoch: int, who: str, why: str) -> Pointer:
        """Make a version champion. Raises: PromotionRefused, StaleEpoch, UnknownModel."""
        return self._change(model, lambda s: rules.promote(s, model, number, verdict, expected_epoch, who, why))

    def rollback(self, model: str, verify: Verify, who: str, why: str, to: int | None = None) -> Pointer:
        """Make an earlier champion champion again, after `verify` opened it.

        Raises: UnknownModel, NothingToRollBackTo, ArtifactCollected, ArtifactRefused; StaleEpoch where somebody
        promoted while it was verified.
        """
        state = self.state(model)
        number = history.target(state, self.audit(model), model, to)
        verify(rules.folder(rules.usable(state, model, number)))
        return self._change(model, lambda s: rules.rollback(s, model, number, state.epoch, who, why))

    def name(self, model: str, alias: str, number: int, who: str, why: str) -> Pointer:
        """Let `challenger` name a version."""
        return self._change(model, lambda s: rules.name(s, model, alias, number, who, why))

    def claim(self, model: str, night: str) -> Claim:
        """Claim a night; every earlier claim of it is void from now on."""
        return self._change(model, lambda s: rules.claim(s, night))

    def publish(self, model: str, number: int, verdict: Verdict, seen: int, claim: Claim, who: str) -> Publication:
        """Record what a night came to, and promote its version if it passed and no newer night is live."""
        return self._change(model, lambda s: rules.publish(s, model, number, verdict, seen, claim, who))

    def collect(self, model: str, number: int, who: str, why: str) -> None:
        """Mark a version as collected. Raises: VersionInUse."""
        serving, events = self.serving(model), self.audit(model)
        self._change(model, lambda s: rules.collect(s, model, number, serving, events, who, why))

    def restore(self, model: str, state: State, who: str) -> None:
        """Take over a model's state from elsewhere. Raises: RegistryNotEmpty."""
        self._change(model, lambda s: rules.restore(s, model, state, who))
