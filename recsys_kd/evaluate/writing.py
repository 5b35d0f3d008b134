"""Pages and pictures for people, each written whole or not at all."""

from contextlib import suppress
from pathlib import Path

from recsys_kd.errors import OutsideError

OTHER_STORE = "choose another `store`"


class ReportUnwritable(OutsideError):
    """A report can't be written where it was told to."""


def write_whole(path: Path, text: str, otherwise: str = "choose another file") -> None:
    """Write a text, and its folder. `otherwise`: what else to do. Raises: ReportUnwritable."""
    building = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        building.write_text(text)
        building.replace(path)
    except OSError as error:
        with suppress(OSError):
            building.unlink()
        raise ReportUnwritable(f"{path}: {error.strerror}; free space, or {otherwise}") from None
