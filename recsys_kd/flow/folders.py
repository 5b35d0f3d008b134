"""Whether a recipe's folders can be written, asked before any work is done for them."""

import tempfile
from pathlib import Path

from recsys_kd.errors import OutsideError
from recsys_kd.settings import Recipe


class FolderUnwritable(OutsideError):
    """A folder that a recipe names can't be written: a share that is away looks like a wrong name, and comes back."""

    def __init__(self, key: str, folder: Path, why: str) -> None:
        super().__init__(
            f"{key}: {folder} can't be written ({why}); mount it, change its rights, or name another folder"
        )


def check_folders(recipe: Recipe) -> None:
    """Raise FolderUnwritable for `store` or `work` where nothing could be written; nothing is left there."""
    for key, folder in (("store", recipe.store), ("work", recipe.work)):
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise FolderUnwritable(key, folder, error.strerror or str(error)) from None
