"""Small served models for the conformance checks, made of random numbers instead of training; a request to them,
and a promotion by a verdict that no gate gave."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np

from recsys_kd.artifact.manifest import Golden, Lineage
from recsys_kd.artifact.write import write_artifact
from recsys_kd.evaluate.verdict import Check, Verdict
from recsys_kd.ids import hash_strings
from recsys_kd.index import KeyIndex
from recsys_kd.registry.protocol import Registry
from recsys_kd.registry.seal import sealed
from recsys_kd.runtime.ranker import Ranker, decode_golden
from recsys_kd.schema import Field, KeyKind, Schema, Vocabulary
from recsys_kd.tables import CodedRows, CompiledStudent, Term

MODEL = "conformance"
FIELDS = (
    Field("user_id", "id", "request", "user_id"),
    Field("item_id", "id", "item", "item_id"),
    Field("device", "categorical", "request", "device"),
    Field("history", "bag", "request", "item_id"),
)
SHELF = (
    Field("shelf", "categorical", "candidate", "shelf"),
    Field("discount", "dense", "candidate", mean=0.2, std=0.1),
)
"""Fields of a candidate that a model may have besides."""
_WIDTH, _FIRST, _RANK = 4, 6, 5
_DISCOUNT = Term("discount", "discount", "candidate", "dense")
_KEYS = {"user_id": np.arange(20), "item": np.arange(100), "device": hash_strings(["phone", "desktop"])}
_SHELVES = {"shelf": np.arange(8)}


def request(user: int) -> dict[str, Any]:
    """Return a request of a user."""
    return {"user_id": user, "device": "phone", "history": [1, 2, 3]}


def shelf(count: int) -> dict[str, Any]:
    """Return what `SHELF` holds of so many candidates, each another value."""
    return {"shelf": [(3 * i + 1) % 8 for i in range(count)], "discount": [0.05 * ((5 * i) % 7) for i in range(count)]}


def student(seed: int, *, shelves: bool = False) -> CompiledStudent:
    """Return a student whose every id has a row of its own, all of its terms folded; `shelves`: with `SHELF`."""
    rng = np.random.default_rng(seed)
    indexes, tables, arrays = {}, {}, {}
    for name, keys in (_KEYS | (_SHELVES if shelves else {})).items():
        index, _ = KeyIndex.build(keys)
        codes = rng.integers(0, 256, (len(keys) + 1, _RANK), dtype=np.uint8)
        scales = np.full((len(keys) + 1, 1), 0.01, np.float16).view(np.uint8)
        indexes[name], tables[name] = index, CodedRows(np.concatenate([codes, scales], 1), 8, _RANK)
        arrays[f"basis.{name}"] = _weights(rng, _RANK, _FIRST + _WIDTH + 1)
        arrays[f"mean.{name}"] = _weights(rng, _FIRST + _WIDTH + 1)
    arrays |= {"bias": _weights(rng, 1), "hidden.0.bias": _weights(rng, _FIRST), "out.weight": _weights(rng, _FIRST)}
    terms: tuple[Term, ...] = (
        Term("item", "item_id", "item", "row", "item", "item", "folded"),
        Term("user_id", "user_id", "request", "row", "user_id", "user_id", "folded"),
        Term("device", "device", "request", "row", "device", "device", "folded"),
        Term("history", "history", "request", "bag", "item", "item", "folded"),
    )
    if shelves:
        arrays |= {"first.discount": _weights(rng, _FIRST, 1), "linear.discount": _weights(rng, 1)}
        terms += Term("shelf", "shelf", "candidate", "row", "shelf", "shelf", "folded"), _DISCOUNT
    kinds: dict[str, KeyKind] = {"user_id": "int64", "item_id": "int64", "device": "string"}
    kinds |= {"shelf": "int64"} if shelves else {}
    schema = Schema(FIELDS + (SHELF if shelves else ()), {name: Vocabulary(name, 1, k) for name, k in kinds.items()})
    return CompiledStudent(schema, _WIDTH, _FIRST, terms, tables, indexes, arrays, {})


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (rng.normal(size=shape) * 0.4).astype(np.float32)


def write_model(store: Path, seed: int, name: str = MODEL, *, shelves: bool = False) -> Path:
    """Write a model's artifact with a golden query; return its folder."""
    model = student(seed, shelves=shelves)
    own: dict[str, list[Any]] = {"shelf": [0, 7, 9], "discount": [[0.0], [1.0], [-1.0]]} if shelves else {}
    query = Golden({"user_id": 3, "device": int(_KEYS["device"][0])}, {"history": [1, 2]}, {}, [0, 50, 999], own, [])
    logits = [float(x) for x in Ranker(model).score_encoded(*decode_golden(model, query))]
    query = Golden(query.ids, query.bags, query.dense, query.candidates, query.features, logits)
    lineage = Lineage(name, "2026-01-01T00:00:00+00:00", "0" * 64, "0" * 64, "0" * 64)
    return write_artifact(store, name, model, lineage, (query,)).path


def promote(registry: Registry, path: Path, name: str = MODEL) -> None:
    """Register an artifact, and make it champion."""
    version = registry.register(name, path.name, path, {}, "conformance")
    now = dt.datetime.now(dt.UTC)
    check = Check("conformance", True, None, None, "nothing was measured")
    verdict = Verdict(True, (check,), path.name, "none", now.isoformat(), (now + dt.timedelta(days=1)).isoformat())
    registry.promote(name, version.number, sealed(verdict), registry.epoch(name), "conformance", "")
