"""The last known good version of a model on this host's own disk: what serves when the registry has nothing to give.

`<folder>/<model>.json` names digest, folder and epoch; the artifact itself is verified again before it is used.
"""

import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys_kd.artifact.write import sync_folder
from recsys_kd.errors import OutsideError

_NAMES = {"model": str, "number": int, "digest": str, "path": str, "epoch": int}


class PointerUnusable(OutsideError):
    """The pointer file can't be read, or not be written."""


@dataclass(frozen=True)
class LastGood:
    """The version that served last, and the registry's epoch then."""

    model: str
    number: int
    digest: str
    path: str
    epoch: int


class PointerFile:
    """Keeps one model's `LastGood`; several processes of a host may share it, the last one to write wins."""

    def __init__(self, folder: Path, model: str) -> None:
        self.path, self.model = folder / f"{model}.json", model

    def read(self) -> LastGood | None:
        """Return what was written last, None where nothing was. Raises: PointerUnusable."""
        try:
            found = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise PointerUnusable(f"{self.path}: {error}; remove it, and the registry alone decides") from None
        kinds = {k: type(v) for k, v in found.items()} if isinstance(found, dict) else {}
        if kinds != _NAMES or found["model"] != self.model:
            raise PointerUnusable(f"{self.path}: not a pointer to a version of '{self.model}'; remove it")
        return LastGood(**found)

    def write(self, pointer: LastGood) -> None:
        """Replace the file, whole or not at all, and durably. Raises: PointerUnusable."""
        building = self.path.with_name(f".{self.path.name}-{uuid.uuid4().hex}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with building.open("x") as file:
                json.dump(asdict(pointer), file)
                file.flush()
                os.fsync(file.fileno())
            building.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            building.unlink(missing_ok=True)
            raise PointerUnusable(f"{self.path}: {error.strerror}; give a folder that can be written") from None
