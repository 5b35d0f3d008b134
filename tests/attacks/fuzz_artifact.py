"""Fuzz target: artifacts changed at random in manifest, tensors or header, every digest put right.

Any of them must be refused, or be a model that scores without a crash. `python -m tests.attacks.fuzz_artifact 100000`.
"""

import copy
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.read import open_artifact
from recsys_kd.artifact.tensors import dump, load
from recsys_kd.runtime.encode import BadRequest
from recsys_kd.runtime.ranker import Ranker
from tests.attacks.small import Original, small_artifact, write_files

ODD: list[Any] = [None, True, -1, 0, 1, 2, 5, 255, 2**31, 2**63, 2**70, 1.5, 1e308]
ODD += ["", "item", "item_id", "bag", "row", [], {}, [1], {"a": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything inside a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [p for key in keys for p in ((*path, key), *places(value[key], (*path, key)))]


def change_json(data: Any, rng: random.Random) -> None:
    """Replace, remove or double something in a JSON value."""
    path = rng.choice(places(data))
    inside = data
    for key in path[:-1]:
        inside = inside[key]
    action, other = rng.random(), rng.choice(ODD)
    if action < 0.6:
        inside[path[-1]] = copy.deepcopy(other)
    elif action < 0.8:
        del inside[path[-1]]
    elif isinstance(inside, list):
        inside.append(copy.deepcopy(inside[path[-1]]))
    else:
        inside["more"] = other


def change_tensors(tensors: dict[str, np.ndarray], rng: random.Random) -> None:
    """Change a tensor's bytes, length, type or name."""
    name = rng.choice(sorted(tensors))
    array, action = tensors[name], rng.random()
    if action < 0.6 and array.nbytes:
        raw = bytearray(array.tobytes())
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw))] = rng.choice([0, 1, 127, 128, 255])
        tensors[name] = np.frombuffer(bytes(raw), dtype=array.dtype).reshape(array.shape)
    elif action < 0.75 and len(array):
        tensors[name] = array[: rng.randrange(len(array))]
    elif action < 0.9:
        tensors[name] = np.concatenate([array, array[:1]])
    else:
        tensors[rng.choice(["x", "table.item", "array.bias"])] = tensors.pop(name)


def change_bytes(weights: bytes, rng: random.Random) -> bytes:
    """Change bytes of the weights file, its header before all."""
    raw = bytearray(weights)
    end = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(rng.randint(1, 4)):
        raw[rng.randrange(end if rng.random() < 0.8 else len(raw))] = rng.randrange(256)
    return bytes(raw)


def one(original: Original, folder: Path, seed: int) -> str:
    """Open one forgery and score with it; return `refused` by which rule, or `scored`."""
    rng = random.Random(seed)
    data = json.loads(original.manifest)
    tensors = dict(load(memoryview(original.weights)))
    proven = rng.random() < 0.7
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            change_json(data, rng)
        else:
            change_tensors(tensors, rng)
    weights = dump(tensors)
    if rng.random() < 0.2:
        weights = change_bytes(weights, rng)
    if not isinstance(data, dict):
        return "no manifest"
    try:
        path = write_files(folder, data, weights)
    except (ValueError, TypeError):
        return "no JSON"  # such as 1e400: no file can hold it
    try:
        # What the golden queries would catch, the kernel meets all the same.
        return _score(Ranker.open(path) if proven else Ranker(open_artifact(path)[1]), rng)
    except ArtifactRefused as error:
        return f"refused: {error.check}"
    finally:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


def _score(ranker: Ranker, rng: random.Random) -> str:
    request = {"user_id": rng.randrange(9), "history": list(range(30)), "age": 1.0, "mood": [0.0] * 4}
    features = {"position": range(50), "seller": range(50), "affinity": [0.0] * 50, "image": [[0.0] * 3] * 50}
    try:
        ranker.score(request, list(range(-5, 45)), features)
    except BadRequest:
        return "opened; it takes other requests"
    return "opened and scored"


def run(count: int, folder: Path, start: int = 0) -> dict[str, int]:
    """Return how often each outcome came; raises what no forgery may raise."""
    original, outcomes = Original(small_artifact(folder).path), dict[str, int]()
    for seed in range(start, start + count):
        try:
            outcome = one(original, folder, seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(run(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, Path(name)))
