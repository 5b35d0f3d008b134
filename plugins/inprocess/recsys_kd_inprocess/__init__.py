"""The champion of an embedded registry, inside a plain Python service: no server, no torch.

`refresh` looks whether another version is champion; a version that does not verify never replaces one that serves.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError, OutsideError
from recsys_kd.runtime.ranker import Ranker

API_VERSION = 1


class NoChampion(InputError):
    """The registry names no champion for the model."""


class RegistryUnreadable(OutsideError):
    """The registry's file can't be read."""


class Backend:
    """Scores requests with the champion of `model` in the store."""

    api_version = API_VERSION

    def __init__(self, store: Path | str, model: str) -> None:
        self.path, self.model = Path(store) / "registry.sqlite", model
        self.version, artifact = self._champion()
        self.ranker = Ranker.open(artifact)

    def _champion(self) -> tuple[int, str]:
        query = (
            "SELECT v.number, v.path FROM aliases a JOIN versions v USING (model, number) "
            "WHERE model = ? AND alias = 'champion'"
        )
        try:
            connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=5)
            try:
                row = connection.execute(query, (self.model,)).fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise RegistryUnreadable(f"{self.path}: {error}; give the folder that a night wrote to") from None
        if row is None:
            raise NoChampion(f"{self.path}: model '{self.model}' has no champion; run a night that passes its gate")
        return int(row[0]), str(row[1])

    def refresh(self) -> bool:
        """Load the champion if it changed; return whether it did. An artifact that is refused changes nothing."""
        version, artifact = self._champion()
        if version == self.version:
            return False
        self.ranker, self.version = Ranker.open(artifact), version
        return True

    def score(self, request: Mapping[str, Any], candidates: Sequence[Any]) -> NDArray[np.float32]:
        """Return the click probability of every candidate, float32 [N]."""
        return self.ranker.score(request, candidates)
