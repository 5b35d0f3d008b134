"""A small artifact with every kind of field, and forgeries of it: changed, with every digest put right."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recsys_kd.artifact.manifest import MANIFEST, WEIGHTS, Golden, Lineage, canonical, digest_of
from recsys_kd.artifact.tensors import dump, load
from recsys_kd.artifact.write import Artifact, write_artifact
from recsys_kd.runtime.ranker import Ranker, decode_golden
from recsys_kd.tables import CompiledStudent
from tests.students import Shape, student

Change = Callable[[Any, dict[str, np.ndarray]], object]
LINEAGE = Lineage("shop", "2026-01-01T00:00:00+00:00", "d" * 64, "r" * 64, "t" * 64)


def small_student(seed: int = 0) -> CompiledStudent:
    return student(Shape(items=20, users=5, candidate=True, dense=True, tiers=4), seed)[0]


def golden(model: CompiledStudent) -> Golden:
    """Return one query with the logits that the model gives it; a model without some of its fields reads the others."""
    query = Golden(
        ids={"user_id": 3, "device": 5},
        bags={"history": [1, 2, 3]},
        dense={"age": [0.5], "mood": [0.1, 0.2, 0.3, 0.4]},
        candidates=[0, 7, 19, 400],
        features={
            "position": [0, 1, 2, 3],
            "seller": [5, 6, 7, 8],
            "affinity": [[0.5]] * 4,
            "image": [[0.1, 0.2, 0.3]] * 4,
        },
        logits=[],
    )
    scores = Ranker(model).score_encoded(*decode_golden(model, query))
    return dataclasses.replace(query, logits=[float(s) for s in scores])


def small_artifact(store: Path, seed: int = 0) -> Artifact:
    model = small_student(seed)
    return write_artifact(store, "shop", model, LINEAGE, (golden(model),))


class Original:
    """The parts of an artifact, to make forgeries of."""

    def __init__(self, path: Path) -> None:
        self.manifest = (path / MANIFEST).read_bytes()
        self.weights = (path / WEIGHTS).read_bytes()

    def forge(self, folder: Path, change: Change) -> Path:
        """Return an artifact changed by `change(manifest, tensors)`; only the rule it breaks can object."""
        data = json.loads(self.manifest)
        tensors = {name: array.copy() for name, array in load(memoryview(self.weights)).items()}
        change(data, tensors)
        return write_files(folder, data, dump(tensors))


def write_files(folder: Path, data: Any, weights: bytes) -> Path:
    """Write a manifest and weights as they are, with right digests."""
    data["files"] = {WEIGHTS: {"bytes": len(weights), "sha256": digest_of(weights)}}
    text = canonical(data)
    path = folder / digest_of(text)
    path.mkdir(exist_ok=True)
    (path / MANIFEST).write_bytes(text)
    (path / WEIGHTS).write_bytes(weights)
    return path
