"""A version in memory, and what a registry has to tell for it to get there.

The protocols are what `recsys_kd.registry` promises, as far as a service needs it: this room knows no registry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.errors import InputError, RecsysKdError
from recsys_kd.runtime.ranker import Ranker


class NoModel(InputError):
    """Neither the registry nor this host's disk has a version that may serve; the exit code is its reason's."""

    def __init__(self, message: str, reason: Exception | None = None) -> None:
        super().__init__(message)
        if isinstance(reason, RecsysKdError):
            self.exit_code = reason.exit_code


class Named(Protocol):
    """What an alias names."""

    @property
    def number(self) -> int:
        """Version number."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact's manifest."""
        ...


class Stored(Named, Protocol):
    """A version and where its artifact lies."""

    @property
    def path(self) -> str:
        """Folder of the artifact."""
        ...


class ModelState(Protocol):
    """A model as of one moment."""

    @property
    def versions(self) -> Mapping[int, Stored]:
        """Every version by number."""
        ...

    @property
    def aliases(self) -> Mapping[str, Named]:
        """What `champion`, `previous` and `challenger` name."""
        ...

    @property
    def epoch(self) -> int:
        """Counts changes of champion; never falls."""
        ...


class Registry(Protocol):
    """What a watcher asks; anything may be raised, and is counted."""

    def state(self, model: str) -> ModelState:
        """Return the model as of one moment; without aliases where it is unknown."""
        ...

    def announce(self, model: str, service: str, digest: str, seconds: int) -> None:
        """Say that a service has an artifact loaded, good for some seconds: it is not collected meanwhile."""
        ...


@dataclass(frozen=True, eq=False)
class Live:
    """A verified version in memory; it stays until the last request that began with it is answered."""

    model: str
    number: int
    digest: str
    path: str
    ranker: Ranker = field(repr=False)


def load(model: str, number: int, digest: str, path: Path) -> Live:
    """Verify a version, golden queries included, which also warms it. Raises: ArtifactRefused.

    The folder must be of the digest that the registry names, and the artifact of the model that is asked for.
    """
    if path.name != digest:
        raise ArtifactRefused(path, "digest", f"the registry names artifact {digest[:12]}, this folder is another")
    ranker = Ranker.open(path)
    name = ranker.manifest.lineage.name if ranker.manifest else ""
    if name != model:
        raise ArtifactRefused(path, "model", f"it is of model '{name}', not of '{model}'")
    return Live(model, number, digest, str(path), ranker)
