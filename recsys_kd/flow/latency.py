"""How long an artifact takes to score a request, measured on its own golden queries, one thread, no torch."""

import time
from pathlib import Path

import numpy as np

from recsys_kd.runtime.ranker import Ranker, decode_golden

CANDIDATES, RUNS, WARM = 1000, 200, 5


def latency_of(path: Path, runs: int = RUNS) -> tuple[float, float]:
    """Return the median and the 99th percentile of microseconds per request of 1,000 candidates."""
    ranker = Ranker.open(path)
    assert ranker.manifest is not None
    times = []
    for i in range(runs + WARM):
        golden = ranker.manifest.golden[i % len(ranker.manifest.golden)]
        request, items, features = decode_golden(ranker.student, golden)
        many = np.resize(items, CANDIDATES)
        wide = type(features)(
            {n: np.resize(v, CANDIDATES) for n, v in features.keys.items()},
            features.bags,
            {n: np.resize(v, (CANDIDATES, v.shape[1])) for n, v in features.dense.items()},
        )
        start = time.perf_counter()
        ranker.score_encoded(request, many, wide)
        if i >= WARM:
            times.append(time.perf_counter() - start)
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1e6
    return float(p50), float(p99)
