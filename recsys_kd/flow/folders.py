"""Whether a recipe's folders can be written, asked before any work is done for them."""

import tempfile
from pathlib import Path

from recsys_kd.errors import InputError, OutsideError
from recsys_kd.settings import Recipe


class FolderUnwritable(OutsideError):
    """A folder that a recipe names can't be written: a share that is away looks like a wrong name, and comes back."""

    def __init__(self, key: str, folder: Path, why: str) -> None:
        super().__init__(
            f"{key}: {folder} can't be written ({why}); mount it, change its rights, or name another folder"
        )


class FolderInUse(InputError):
    """A folder holds what would be mixed with what is written there."""


def check_folders(recipe: Recipe) -> None:
    """Raise FolderUnwritable for `store` or `work` where nothing could be written; nothing is left there.

    Raises FolderInUse where one of them lies in the log's folder.
    """
    log = recipe.data.path.resolve()
    for key, folder in (("store", recipe.store), ("work", recipe.work)):
        if recipe.data.path.is_dir() and folder.resolve().is_relative_to(log):
            raise FolderInUse(
                f"{key}: {folder} lies in the log's folder {recipe.data.path}: its Parquet files would be read as "
                f"the log; name another `{key}`, or keep the log in a folder of its own"
            )
        require_writable(key, folder)


def require_writable(key: str, folder: Path) -> None:
    """Raise FolderUnwritable where nothing could be written to a folder, there or to be made; nothing is left there."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        why = f"nothing can be made in {there}: {error.strerror or error}"
        raise FolderUnwritable(key, folder, why) from None


def require_empty(folder: Path) -> None:
    """Raise FolderInUse where a folder holds anything: days of an older log would be read with the new ones."""
    if folder.is_dir() and any(folder.iterdir()):
        raise FolderInUse(f"{folder}: there are files already; name a new or an empty folder, or remove this one")
