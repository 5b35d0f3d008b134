"""How long an artifact takes to score a request, measured on its own golden queries, one thread, no torch."""

import time
from pathlib import Path

import numpy as np

from recsys_kd.runtime.encode import Features
from recsys_kd.runtime.ranker import Ranker, decode_golden

CANDIDATES, RUNS, WARM = 1000, 200, 5


def latency_of(path: Path, runs: int = RUNS) -> tuple[float, float]:
    """Return the median and the 99th percentile of microseconds per request of 1,000 candidates."""
    ranker = Ranker.open(path)
    queries, times = ranker.manifest.golden if ranker.manifest else (), []
    for i in range(runs + WARM):
        golden = queries[i % len(queries)]
        request, items, features = decode_golden(ranker.student, golden)
        many = np.resize(items, CANDIDATES)
        wide = Features(
            [np.resize(keys, CANDIDATES) for keys in features.keys],
            [np.resize(values, (CANDIDATES, values.shape[1])) for values in features.numbers],
        )
        start = time.perf_counter()
        ranker.score_encoded(request, many, wide)
        if i >= WARM:
            times.append(time.perf_counter() - start)
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1e6
    return float(p50), float(p99)
