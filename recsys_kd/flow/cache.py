"""Stages keyed by content: a stage whose inputs are unchanged is not done again, an interrupted run continues.

A stage writes into a temporary folder that is renamed when it is whole and on disk, so a folder that exists is a
finished stage; one whose files are no longer what was written is done again. Runs may share a work folder: each
temporary folder is locked by the run that fills it, a second run that wants the same stage waits for the first, and
what a killed run left (its lock is gone) is cleared away, but for its checkpoints.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from recsys_kd.errors import OutsideError
from recsys_kd.flow.intact import RECORD, damage, write_record
from recsys_kd.flow.provenance import code_digest
from recsys_kd.progress import Progress

CHECKPOINT = "checkpoint"
"""Folder inside a stage's temporary one that outlives a kill, and is removed when the stage is whole."""
_LOCK = ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FORGOTTEN_SECONDS = 7 * 86_400


class WorkUnwritable(OutsideError):
    """The work folder can't be written."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path}: {error}; free space or choose another `work` folder")


class StageDamaged(OutsideError):
    """A finished stage holds other bytes than were written, and can't be removed to do it again."""

    def __init__(self, path: Path, why: str, error: OSError) -> None:
        super().__init__(f"{path}: {why}, and it can't be removed ({error.strerror or error}); remove this folder")


def key_of(*parts: Any) -> str:
    """Return a digest of settings, keys and this package's code: what a stage's result depends on."""
    plain = [json.loads(p.model_dump_json()) if isinstance(p, BaseModel) else p for p in parts]
    text = json.dumps([code_digest(), plain], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass
class Stages:
    """The stages of one run in a work folder."""

    folder: Path
    progress: Progress
    done: dict[str, str] = field(default_factory=dict)
    """Stage -> `reused` or `run`, for the report."""
    intact: set[Path] = field(default_factory=set)
    """Finished stages that this run has made, or found as they were written: they are not read through again."""

    def run(self, name: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of a stage's result, making it with `make(folder)` unless it is there, and whole."""
        final = self.folder / f"{name}-{key}"
        building = self.folder / f".{name}-{key}"
        while not self._whole(final):
            with _locked(building, self.progress) as mine:
                if mine and not self._whole(final, clear=True):
                    self._make(final, building, make)
                    self.done[name] = "run"
                    self.intact.add(final)
                    return final
        self.done[name] = "reused"
        self.progress.note(f"{name}: unchanged, reused")
        return final

    def _whole(self, final: Path, clear: bool = False) -> bool:
        """Return whether a finished stage is there as it was written; `clear`: remove what is left of a damaged one."""
        if final in self.intact:
            return True
        if not final.exists():
            return False
        why = damage(final)
        if why is None:
            self.intact.add(final)
        elif clear:
            self.progress.note(f"warning: {final}: {why}; done again")
            try:
                shutil.rmtree(final)
            except OSError as error:
                raise StageDamaged(final, why, error) from error
        return why is None

    def _make(self, final: Path, building: Path, make: Callable[[Path], None]) -> None:
        try:
            _clear(building)
            make(building)
            shutil.rmtree(building / CHECKPOINT, ignore_errors=True)
            write_record(building, frozenset((_LOCK, RECORD)))
            _sync(building)
            building.replace(final)
            _sync_folder(final.parent)
        except OSError as error:
            _clear(building)
            if error.errno in _FULL or _is_below(error.filename, building):
                raise WorkUnwritable(final, error) from error
            raise
        except BaseException:
            _clear(building)
            raise


@contextmanager
def _locked(building: Path, progress: Progress | None) -> Iterator[bool]:
    """Lock a temporary folder, making it; False where it is not, or no longer, the one at that path: try again.

    Without a `progress` no folder is made, and nobody is waited for.
    """
    lock = building / _LOCK
    try:
        if progress is not None:
            building.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        yield False  # renamed or removed by another run since
        return
    except OSError as error:
        raise WorkUnwritable(building, error) from None
    try:
        yield _wait(handle, building, progress) and _same(handle, lock)
    finally:
        _leave(building, handle)


def _wait(handle: int, building: Path, progress: Progress | None) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if progress is None:
            return False
        progress.note(f"{building.name[1:]}: another run is making it; waiting")
        fcntl.flock(handle, fcntl.LOCK_EX)
    return True


def _same(handle: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except FileNotFoundError:
        return False


def _leave(building: Path, handle: int) -> None:
    """Give the lock back; remove the folder if nothing but the lock is left in it."""
    try:
        if _same(handle, building / _LOCK) and [p.name for p in building.iterdir()] == [_LOCK]:
            shutil.rmtree(building, ignore_errors=True)
        else:
            final_lock = building.with_name(building.name[1:]) / _LOCK
            if _same(handle, final_lock):
                final_lock.unlink()
    finally:
        os.close(handle)


def _clear(building: Path) -> None:
    """Remove what lies in a temporary folder, but not its lock and checkpoints."""
    for path in building.iterdir() if building.is_dir() else ():
        if path.name not in (_LOCK, CHECKPOINT):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_below(name: Any, folder: Path) -> bool:
    return isinstance(name, str) and Path(name).is_relative_to(folder)


def _sync(folder: Path) -> None:
    """Bring a folder's files and their names to the disk: a rename may otherwise outlive what it named."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed runs left half-made: temporary folders that no run holds; checkpoints after a week."""
    for path in folder.glob(".*-*") if folder.is_dir() else ():
        if not path.is_dir():
            continue
        with _locked(path, None) as mine:
            if mine:
                _clear(path)
                if time.time() - path.stat().st_mtime > _FORGOTTEN_SECONDS:
                    shutil.rmtree(path / CHECKPOINT, ignore_errors=True)
