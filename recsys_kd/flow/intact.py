"""Whether a finished stage still holds what was written: the size and the SHA-256 of each of its files.

All files are read, those of the encoded log too: at over a gigabyte a second this is little beside the hours that a
flipped bit in a label would be trained on, and what is read here is at hand when the training reads it.
"""

import hashlib
import json
from pathlib import Path

from recsys_kd.flow.provenance import file_digest

RECORD = "stage.json"
"""The record's name in a stage's folder."""


def write_record(folder: Path, besides: frozenset[str]) -> None:
    """Write what a stage's folder holds; `besides`: names at its top that are no part of it."""
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    held = {name: [p.stat().st_size, file_digest(p)] for name, p in files.items() if Path(name).parts[0] not in besides}
    (folder / RECORD).write_text(json.dumps({"files": held, "sum": _sum(held)}))


def damage(folder: Path) -> str | None:
    """Return the first file of a stage that is not what was written, and why; None where all are.

    Sizes are compared first, so that a file cut short is found before gigabytes are read.
    """
    held = _read(folder / RECORD)
    if held is None:
        return f"{RECORD} can't be read"
    for name, (size, _) in held.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if (found := path.stat().st_size) != size:
            return f"{name} holds {found:,} bytes instead of {size:,}"
    for name, (_, digest) in held.items():
        try:
            if file_digest(folder / name) != digest:
                return f"{name} holds other bytes than were written"
        except OSError as error:
            return f"{name} can't be read ({error.strerror or error})"
    return None


def _read(path: Path) -> dict[str, tuple[int, str]] | None:
    try:
        record = json.loads(path.read_text())
        held: dict[str, tuple[int, str]] = record["files"]
        return held if record["sum"] == _sum(held) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sum(held: object) -> str:
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()
