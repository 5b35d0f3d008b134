"""A folder that a command fills whole or not at all: what is left of a failed one would stop the next try."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_kd.errors import OutsideError
from recsys_kd.flow.folders import check_writable, require_empty


class Unfinished(OutsideError):
    """A folder could be written, and then a disk was full, or a file could not be read."""

    def __init__(self, key: str, folder: Path, error: OSError) -> None:
        why = os.strerror(error.errno) if error.errno else str(error)
        about = f"{error.filename}: " if error.filename else ""
        super().__init__(
            f"{key}: {folder} could not be filled ({about}{why}); what was written is taken out again: make room, or "
            "mend that, and start anew"
        )


@contextmanager
def filled(folder: Path, key: str = "OUT") -> Iterator[None]:
    """Fill a new or an empty folder; where that fails, everything is taken out again.

    key: what named the folder. Raises: FolderInUse or FolderUnwritable before any work, Unfinished where the system
    refuses something later.
    """
    check_writable(key, folder)
    require_empty(folder)
    there = folder.exists()
    try:
        yield
    except OSError as error:
        _empty(folder, there)
        raise Unfinished(key, folder, error) from None
    except BaseException:
        _empty(folder, there)
        raise


def _empty(folder: Path, keep: bool) -> None:
    for found in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(found) if found.is_dir() else found.unlink()
    if folder.is_dir() and not keep:
        folder.rmdir()
