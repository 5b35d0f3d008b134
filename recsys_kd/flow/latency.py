"""How long an artifact takes to score a request as a service is asked: raw values in, probabilities out, one thread.

An artifact holds its golden queries as keys. Keys of integer ids are the ids; of string ids the hashes, so strings are
made up here: they are hashed and looked up as any are, and their rows are the fallback's.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys_kd.artifact.manifest import Golden
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.runtime.values import MISSING
from recsys_kd.schema import ITEM, Field, Schema

CANDIDATES, RUNS, WARM = 1000, 200, 5


@dataclass(frozen=True)
class RawQuery:
    """What `Ranker.score` takes."""

    request: Mapping[str, Any]
    candidates: list[Any]
    features: Mapping[str, Any] | None


def raw_query(schema: Schema, golden: Golden, count: int) -> RawQuery:
    """Return a golden query in raw values, its candidates repeated until there are `count`."""
    request: dict[str, Any] = {}
    for f in schema.of(side="request"):
        if f.kind == "bag":
            request[f.name] = [_raw_id(schema, f, key) for key in golden.bags[f.name]]
        elif f.is_lookup:
            request[f.name] = _raw_id(schema, f, golden.ids[f.name])
        else:
            request[f.name] = _raw_numbers(f, golden.dense[f.name])
    at = [i % len(golden.candidates) for i in range(count)]
    features = {
        f.name: [_raw_feature(schema, f, golden.features[f.name][i]) for i in at] for f in schema.of(side="candidate")
    }
    item = schema.field(ITEM)
    return RawQuery(request, [_raw_id(schema, item, golden.candidates[i]) for i in at], features or None)


def _raw_feature(schema: Schema, field: Field, value: Any) -> Any:
    return _raw_id(schema, field, value) if field.is_lookup else _raw_numbers(field, value)


def _raw_id(schema: Schema, field: Field, key: int) -> Any:
    if key == MISSING:
        return None
    return f"id {key % 2**32:x}" if schema.vocabularies[field.vocabulary or ""].keys == "string" else key


def _raw_numbers(field: Field, values: list[float]) -> Any:
    """Undo the standardization; a vector is used as it is."""
    raw = values if field.kind == "vector" else [v * field.std + field.mean for v in values]
    return raw[0] if field.dim == 1 else raw


def medians(rankers: Mapping[str, Ranker], golden: Sequence[Golden], runs: int = RUNS) -> dict[str, float]:
    """Return the median microseconds per request of rankers of one schema; asked in turn, noise hits them alike."""
    return {name: float(np.median(times)) for name, times in _microseconds(rankers, golden, runs).items()}


def latency_of(path: Path, runs: int = RUNS) -> tuple[float, float]:
    """Return the median and the 99th percentile of microseconds per request of 1,000 candidates."""
    ranker = Ranker.open(path)
    golden = ranker.manifest.golden if ranker.manifest else ()
    p50, p99 = np.quantile(_microseconds({"": ranker}, golden, runs)[""], [0.5, 0.99])
    return float(p50), float(p99)


def _microseconds(rankers: Mapping[str, Ranker], golden: Sequence[Golden], runs: int) -> dict[str, list[float]]:
    schema = next(iter(rankers.values())).schema
    queries = [raw_query(schema, query, CANDIDATES) for query in golden if query.candidates]
    times: dict[str, list[float]] = {name: [] for name in rankers}
    for i in range(runs + WARM):
        query = queries[i % len(queries)]
        for name, ranker in rankers.items():
            start = time.perf_counter()
            ranker.score(query.request, query.candidates, query.features)
            if i >= WARM:
                times[name].append((time.perf_counter() - start) * 1e6)
    return times
