"""Flip bits of an artifact's files, and cut them short, in place: none may be accepted, none may crash.

`python -m tests.attacks.flips` flips 100,000 bits, each another one while there are any, and cuts at every length; the
suite flips a seeded share of them. (`make bench` runs this too.)
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.manifest import MANIFEST, WEIGHTS
from recsys_kd.artifact.read import open_artifact
from tests.attacks.small import small_artifact

ALL = 100_000


def accepted(path: Path) -> bool:
    """Return whether an artifact is accepted; whatever it raises but a refusal goes through."""
    try:
        open_artifact(path)
    except ArtifactRefused:
        return False
    return True


def positions(path: Path, count: int, seed: int) -> Iterator[tuple[str, int, int]]:
    """Yield file, byte and bit of `count` flips in random order; every bit once before any comes again."""
    bits = [(name, at) for name in (MANIFEST, WEIGHTS) for at in range(8 * (path / name).stat().st_size)]
    rng = random.Random(seed)
    while count > 0:
        for name, at in rng.sample(bits, min(count, len(bits))):
            yield name, at // 8, at % 8
        count -= len(bits)


def flip(path: Path, count: int, seed: int = 0) -> list[tuple[str, int, int]]:
    """Return the flips that were accepted."""
    clean = {name: (path / name).read_bytes() for name in (MANIFEST, WEIGHTS)}
    handles = {name: os.open(path / name, os.O_WRONLY) for name in clean}
    found = []
    for name, byte, bit in positions(path, count, seed):
        own = clean[name][byte]
        os.pwrite(handles[name], bytes([own ^ 1 << bit]), byte)
        if accepted(path):
            found.append((name, byte, bit))
        os.pwrite(handles[name], bytes([own]), byte)
    for handle in handles.values():
        os.close(handle)
    if not accepted(path):
        raise RuntimeError("the artifact was not put back as it was")
    return found


def truncate(path: Path) -> list[tuple[str, int]]:
    """Return the lengths, of all shorter than each file's own, at which it was accepted."""
    found = []
    for name in (MANIFEST, WEIGHTS):
        clean = (path / name).read_bytes()
        for length in reversed(range(len(clean))):
            os.truncate(path / name, length)
            if accepted(path):
                found.append((name, length))
        (path / name).write_bytes(clean)
    return found


def main(count: int = ALL) -> None:
    """Flip and cut, and print what was accepted; exit code 1 if anything was."""
    with tempfile.TemporaryDirectory() as folder:
        path, start = small_artifact(Path(folder)).path, time.perf_counter()
        flips, cuts = flip(path, count), truncate(path)
        size = sum(f.stat().st_size for f in path.iterdir())
        print(f"{count:,} flips of {8 * size:,} bits, {size:,} truncations, {time.perf_counter() - start:.0f} s")
        print(f"accepted: {len(flips)} flips, {len(cuts)} truncations")
    if flips or cuts:
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ALL)
