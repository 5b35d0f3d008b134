"""What the conformance checks look at a plugin in: a store, a registry, a champion, and the plugin opened on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.artifact.manifest import WEIGHTS
from recsys_kd.errors import InputError
from recsys_kd.flow.conformance_models import MODEL, promote, request, write_model
from recsys_kd.registry.sqlite import SqliteRegistry
from recsys_kd.registry.where import SQLITE
from recsys_kd.runtime.plugins import Backend, ServingConfig, find
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.runtime.service import Answer

CANDIDATES = [40, 3, 5_000_000, 0, 99, 3, 17]
"""In no order, one of them twice, and one without a row of its own."""
TOLERANCE = 1e-6


class ContractBroken(InputError):
    """A plugin does not do what the contract says."""


def must(kept: bool, what: str) -> None:
    """Raise ContractBroken unless a promise was kept."""
    if not kept:
        raise ContractBroken(what)


class World:
    """A store and a registry, and the plugin that is looked at."""

    def __init__(self, folder: Path, plugin: str) -> None:
        self.plugin, self.store, self.pointers = plugin, folder / "store", folder / "pointers"
        self.registry = SqliteRegistry(self.store / SQLITE)

    def publish(self, seed: int, *, broken: bool = False, shelves: bool = False) -> Path:
        """Make a new model champion; a broken one by hand, as a registry that was lied to would."""
        path = write_model(self.store, seed, shelves=shelves)
        if broken:
            data = bytearray((path / WEIGHTS).read_bytes())
            data[-1] ^= 1
            (path / WEIGHTS).write_bytes(data)
        promote(self.registry, path)
        return path

    def challenge(self, seed: int) -> tuple[Path, int]:
        """Make a new model challenger; return its folder and number."""
        path = write_model(self.store, seed)
        number = self.registry.register(MODEL, path.name, path, {}, "conformance").number
        self.registry.name(MODEL, "challenger", number, "conformance", "")
        return path, number

    def config(self, poll_seconds: float = 3600.0) -> ServingConfig:
        """Return what the plugin is told; by default it polls only when asked to."""
        where = str(self.store / SQLITE)
        return ServingConfig(MODEL, where, pointers=self.pointers, poll_seconds=poll_seconds)

    @contextmanager
    def open(self, config: ServingConfig | None = None) -> Iterator[Backend]:
        """Open the plugin, and close it."""
        backend = find(self.plugin).open(config or self.config())
        try:
            yield backend
        finally:
            backend.close()


def expected(path: Path, user: int = 3) -> NDArray[np.float32]:
    """Return the probabilities that an artifact gives."""
    return Ranker.open(path).score(request(user), CANDIDATES)


def same(answer: Answer, path: Path, user: int = 3) -> bool:
    """Return whether an answer is that of an artifact, and says so."""
    want = expected(path, user)
    return (
        answer.digest == path.name
        and answer.scores.shape == want.shape
        and bool(np.abs(answer.scores - want).max(initial=0.0) <= TOLERANCE)
    )
