"""The champion of an embedded registry, inside a plain Python service: no server, no torch, NumPy alone.

A log of what a shadow found needs pyarrow besides (`recsys-kd-inprocess[shadow]`).

A thread keeps the service on the champion; a version that does not verify never replaces one that serves.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError, OutsideError
from recsys_kd.runtime.plugins import API_VERSION, ServingConfig
from recsys_kd.runtime.ranker import Candidates
from recsys_kd.runtime.service import Answer, Service
from recsys_kd.runtime.shadow import Shadow
from recsys_kd.runtime.watcher import Watcher

SQLITE = "registry.sqlite"


class NoChampion(InputError):
    """The registry names no champion for the model."""


class RegistryUnreadable(OutsideError):
    """The registry's file can't be read."""


@dataclass(frozen=True)
class Version:
    """A registered version."""

    number: int
    digest: str
    path: str


@dataclass(frozen=True)
class State:
    """A model as of one moment, as far as a service needs it."""

    versions: dict[int, Version]
    aliases: dict[str, Version]
    epoch: int


class ReadOnlyRegistry:
    """The registry's SQLite file, only ever read: a service needs no right to write it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def state(self, model: str) -> State:
        """Return what the aliases name. Raises: RegistryUnreadable."""
        query = (
            "SELECT a.alias, a.epoch, v.number, v.digest, v.path FROM aliases a JOIN versions v USING (model, number) "
            "WHERE model = ?"
        )
        try:
            connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=5)
            try:
                rows = connection.execute(query, (model,)).fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise RegistryUnreadable(f"{self.path}: {error}; give the folder that a night wrote to") from None
        aliases = {alias: Version(*rest) for alias, _, *rest in rows}
        epoch = next((epoch for alias, epoch, *_ in rows if alias == "champion"), 0)
        return State({v.number: v for v in aliases.values()}, aliases, epoch)

    def announce(self, model: str, service: str, digest: str, seconds: int) -> None:
        """Say nothing: this registry is only read."""


def _shadow(config: ServingConfig) -> Shadow | None:
    if not config.shadow:
        return None
    if config.shadow_log is None:
        return Shadow(config.shadow)
    from recsys_kd.flow.shadow_log import ParquetLog

    return Shadow(config.shadow, ParquetLog(config.shadow_log / config.model))


class Backend:
    """Scores requests with the champion of `model` in the store, and follows the registry.

    A host that must also start while the registry is away uses `open`, with a folder for the last known good version.
    Closing it, or leaving its `with` block, ends its thread.
    """

    api_version = API_VERSION

    def __init__(self, store: Path | str, model: str, config: ServingConfig | None = None) -> None:
        config = config or ServingConfig(model, registry=str(Path(store) / SQLITE))
        registry = ReadOnlyRegistry(Path(config.registry or Path(store) / SQLITE))
        if config.pointers is None and "champion" not in registry.state(model).aliases:
            text = f"{registry.path}: model '{model}' has no champion; run a night that passes its gate"
            raise NoChampion(text)
        challenged = config.canary > 0 or config.shadow > 0
        watcher = Watcher(
            model, registry, config.pointers, seconds=config.poll_seconds, store=config.store, challenger=challenged
        )
        self.service = Service(watcher, config.canary, _shadow(config))
        self.service.start()

    @classmethod
    def open(cls, config: ServingConfig) -> "Backend":
        """Load the champion and watch the registry, an SQLite file. Raises: NoModel, NoChampion, RegistryUnreadable."""
        return cls(config.store or Path(), config.model, config)

    @property
    def version(self) -> int:
        """The version that serves."""
        return self.service.watcher.serving.champion.number

    def refresh(self) -> bool:
        """Look at the registry now; return whether another version serves.

        Raises what the registry or the artifact was refused for: the version that served goes on.
        """
        changed = self.service.watcher.poll()
        if self.service.watcher.fault is not None:
            raise self.service.watcher.fault
        return changed

    def score(self, request: Mapping[str, Any], candidates: Sequence[Any]) -> NDArray[np.float32]:
        """Return the click probability of every candidate, float32 [N]."""
        return self.answer(request, candidates).scores

    def answer(
        self, request: Mapping[str, Any], candidates: Candidates, features: Mapping[str, Any] | None = None
    ) -> Answer:
        """Return the click probabilities with the version that gave them. Raises: BadRequest."""
        return self.service.score(request, candidates, features)

    def close(self) -> None:
        """End the thread that watches."""
        self.service.stop()

    def __enter__(self) -> "Backend":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
