"""Stages keyed by content: a stage whose inputs are unchanged is not done again, an interrupted run continues.

A stage writes into a temporary folder that is renamed when it is whole, so a folder that exists is a finished stage.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from recsys_kd import __version__
from recsys_kd.errors import OutsideError
from recsys_kd.progress import Progress


class WorkUnwritable(OutsideError):
    """The work folder can't be written."""


def key_of(*parts: Any) -> str:
    """Return a digest of settings and keys: what a stage's result depends on."""
    plain = [json.loads(p.model_dump_json()) if isinstance(p, BaseModel) else p for p in parts]
    text = json.dumps([__version__, plain], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass
class Stages:
    """The stages of one run in a work folder."""

    folder: Path
    progress: Progress
    done: dict[str, str] = field(default_factory=dict)
    """Stage -> `reused` or `run`, for the report."""

    def run(self, name: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of a stage's result, making it with `make(folder)` unless it is there already."""
        final = self.folder / f"{name}-{key}"
        if final.exists():
            self.done[name] = "reused"
            self.progress.note(f"{name}: unchanged, reused")
            return final
        building = self.folder / f".{name}-{uuid.uuid4().hex[:8]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            building.mkdir()
            make(building)
            Path(building).replace(final)
        except OSError as error:
            raise WorkUnwritable(f"{final}: {error}; free space or choose another `work` folder") from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
        self.done[name] = "run"
        return final


def remove_leftovers(folder: Path) -> None:
    """Delete what killed runs left half-made (folders whose name starts with a dot)."""
    for path in folder.glob(".*-????????") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)
