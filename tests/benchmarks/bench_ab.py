"""Offline A/B over 10M scored rows of 500k users: `recsys-kd ab`'s time and memory, a loop bootstrap, and ranx.

BENCH_AB_ROWS makes it smaller. Answers are checked before ratios are printed: NDCG against ranx to 1e-9 on rows without
ties, and the bootstrap's errors against the loop's and the delta method's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_kd.evaluate.bootstrap import replicate_values
from recsys_kd.evaluate.lists import list_metrics
from recsys_kd.evaluate.measure import measure, measure_model
from recsys_kd.evaluate.offpolicy import off_policy
from recsys_kd.evaluate.sample import Sample
from tests.benchmarks.table import show
from tests.evaluate.test_offpolicy import simulated, slates

LOGS = 1000
ROWS = int(os.environ.get("BENCH_AB_ROWS", "10000000"))
CANDIDATES, REPLICATES, LOOP = 10, 1000, 3
USERS = ROWS // 20
RANX_ROWS = min(ROWS, 200_000)

CHILD = """
import json, sys, time
start = time.perf_counter()
from pathlib import Path
from recsys_kd.flow.ab import compare_log
found = compare_log(Path(sys.argv[1]), "control", ["treatment"], Path(sys.argv[2])).comparison
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
cpu = time.process_time()
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": int(status["VmHWM"].split()[0]) * 1024,
                  "users": found.users, "metrics": len(found.metrics["control"]), "headline": found.headline}))
"""
RECIPE = """\
name: bench
data: {path: log.parquet, columns: {request_id: request_id}}
ab: {price: price, replicates: %d}
"""


def write(path: Path) -> None:
    """Write a log of scored rows, a million at a time."""
    rng, step = np.random.default_rng(0), 1_000_000
    price = rng.lognormal(3.0, 0.5, 50_000).astype(np.float32)
    writer = None
    for start in range(0, ROWS, step):
        requests = min(step, ROWS - start) // CANDIDATES
        n = requests * CANDIDATES
        logit = (rng.normal(size=n) - 2.0).astype(np.float32)
        number = start // CANDIDATES + np.arange(requests)
        user = np.where(number < USERS, number, rng.integers(0, USERS, requests))
        item = (rng.integers(0, 5_000, requests)[:, None] * CANDIDATES + np.arange(CANDIDATES)).ravel()
        table = pa.table(
            {
                "user_id": np.repeat(user, CANDIDATES),
                "item_id": item,
                "timestamp": np.repeat(1_700_000_000 + start + np.arange(requests), CANDIDATES),
                "label": (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int8),
                "request_id": np.repeat(number, CANDIDATES),
                "price": price[item],
                "control": logit + 0.30 * rng.normal(size=n),
                "treatment": logit + 0.29 * rng.normal(size=n),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, write_page_checksum=True)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def whole(path: Path) -> dict[str, object]:
    """Return the time and memory of the whole comparison, in a process of its own."""
    recipe = path.with_name("recipe.yaml")
    recipe.write_text(RECIPE % REPLICATES)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(recipe)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    return {
        "what": f"whole comparison, {ROWS:,} rows, {found['users']:,} users, {found['metrics']} metrics x 2",
        "seconds": f"{found['seconds']:.1f}",
        "CPU s": f"{found['cpu']:.1f}",
        "peak MB": f"{found['peak'] / 1e6:.0f}",
        "times faster": "",
    }


def sample_of(path: Path, rows: int) -> tuple[Sample, dict[str, np.ndarray]]:
    """Return the first rows as a sample, with both scores."""
    table = pq.read_table(path).slice(0, rows)
    column = {name: table[name].to_numpy() for name in table.column_names}
    label = column["label"].astype(np.float32)
    item = column["item_id"].astype(np.int32)
    sample = Sample(label, np.ones_like(label), column["user_id"], column["request_id"], item, column["price"])
    return sample, {name: column[name] for name in ("control", "treatment")}


def loop_bootstrap(sample: Sample, scores: dict[str, np.ndarray], replicates: int) -> dict[str, np.ndarray]:
    """Return differences of every metric in each replicate: users drawn, their rows gathered, all measured again."""
    rng = np.random.default_rng(1)
    order = np.argsort(sample.cluster, kind="stable")
    counts = np.bincount(sample.cluster)
    starts = np.cumsum(counts) - counts
    out: dict[str, list[float]] = {}
    for _ in range(replicates):
        drawn = rng.integers(sample.clusters, size=sample.clusters)
        n = counts[drawn]
        inside = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        rows = order[np.repeat(starts[drawn], n) + inside]
        clone = np.repeat(np.arange(len(drawn)), n)
        request = clone.astype(np.int64) * (int(sample.request.max()) + 1) + sample.request[rows]
        part = sample.where(rows)
        again = Sample(part.label, part.weight, clone, request, part.item, part.price)
        found = {name: measure(z[rows], again, (10,), 20) for name, z in scores.items()}
        for metric, base in found["control"].items():
            out.setdefault(metric, []).append(found["treatment"][metric].value - base.value)
    return {metric: np.array(values) for metric, values in out.items()}


def against_loop(path: Path) -> list[dict[str, object]]:
    """Return our bootstrap beside a loop that measures every replicate from its rows, on a tenth of the log."""
    sample, scores = sample_of(path, ROWS // 10)
    start = time.perf_counter()
    models = {name: measure_model(z, sample, (10,), 20).metrics for name, z in scores.items()}
    names = [m for m, found in models["control"].items() if found.sums]
    values = replicate_values([models[s][m].sums for s in scores for m in names], REPLICATES, 7)
    ours = time.perf_counter() - start
    difference = {m: values[len(names) + i] - values[i] for i, m in enumerate(names)}
    start = time.perf_counter()
    loop = loop_bootstrap(sample, scores, LOOP)
    each = (time.perf_counter() - start) / LOOP
    for metric in ("auc", "gauc", "logloss", "ndcg@10", "mrr"):
        spread, truth = difference[metric].std(), models["treatment"][metric].value - models["control"][metric].value
        assert np.abs(loop[metric] - truth).max() < 6 * spread, f"{metric}: loop and sums disagree"
    took = [{"what": f"{REPLICATES} replicates, all metrics, {ROWS // 10:,} rows: ours", "seconds": f"{ours:.2f}"}]
    slow = each * REPLICATES
    took.append({"what": f"NumPy loop, {LOOP} replicates timed", "seconds": f"{slow:.0f} (projected)"})
    took[0]["times faster"] = f"{slow / ours:.0f}"
    return [
        {"what": row["what"], "seconds": row["seconds"], "times faster": row.get("times faster", "")} for row in took
    ]


def against_ranx(path: Path) -> list[dict[str, object]]:
    """Return NDCG@10 and MRR beside ranx's on the same runs; its compilation and its building of runs don't count."""
    from ranx import Qrels, Run
    from ranx import evaluate as ranx_evaluate

    sample, scores = sample_of(path, RANX_ROWS)
    queries, docs = sample.request.astype(str), np.asarray(sample.item, dtype=np.int64).astype(str)
    runs: dict[str, dict[str, float]] = {}
    marks: dict[str, dict[str, int]] = {}
    for q, d, s, y in zip(queries, docs, scores["control"].tolist(), sample.label.tolist(), strict=True):
        runs.setdefault(q, {})[d] = s
        marks.setdefault(q, {})[d] = int(y)
    clicked = [q for q, m in marks.items() if any(m.values())]
    qrels, run = Qrels({q: marks[q] for q in clicked}), Run({q: runs[q] for q in clicked})
    theirs = ranx_evaluate(qrels, run, ["ndcg@10", "mrr"])
    lean = Sample(sample.label, sample.weight, sample.user, sample.request)
    ours = list_metrics(scores["control"], lean, (10,))
    for metric, value in theirs.items():
        gap = abs(ours[metric].value - float(value))
        assert gap < 1e-9, f"{metric}: {ours[metric].value}, ranx {value}"
        print(f"{metric}: ours {ours[metric].value:.12f}, ranx {float(value):.12f}, {gap:.1e} apart")
    slow = least_seconds(lambda: ranx_evaluate(qrels, run, "ndcg@10"))
    fast = least_seconds(lambda: list_metrics(scores["control"], lean, (10,)))
    return [
        {"what": f"NDCG@10 of {RANX_ROWS:,} rows (and MRR, HitRate): ours", "seconds": f"{fast:.3f}",
         "times faster": f"{slow / fast:.1f}"},
        {"what": "ranx, NDCG@10 alone, runs built before", "seconds": f"{slow:.3f}", "times faster": ""},
    ]  # fmt: skip


def least_seconds(run: Callable[[], object], times: int = 5) -> float:
    """Return the least time of several runs."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return min(took)


def coverage() -> list[dict[str, object]]:
    """Return how often 95% intervals hold the truth, over simulated logs with users that differ."""
    rng, other, hits, widths = np.random.default_rng(5), np.random.default_rng(9), Counter[str](), Counter[str]()
    for _ in range(LOGS):
        log, truth = simulated(rng)
        lists, true_lists = slates(other)
        both = [(*pair, truth) for pair in off_policy(log).estimates.items()]
        for name, found, truth in both + [(*pair, true_lists) for pair in lists.estimates.items()]:
            hits[name] += found.low <= truth <= found.high
            widths[name] += found.high - found.low
    return [{"estimator": n, "covers": f"{hits[n] / LOGS:.1%}", "mean width": f"{widths[n] / LOGS:.4f}"} for n in hits]


def main() -> None:
    """Print the tables."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        write(path)
        show(f"ab-{ROWS}", [whole(path)])
        show(f"ab-{ROWS}-bootstrap", against_loop(path))
        if find_spec("ranx") is None:
            print("ranx: skipped, it is not installed; it is in the extra `bench`")
        else:
            show(f"ab-{RANX_ROWS}-ranx", against_ranx(path))
    show(f"ab-coverage-{LOGS}", coverage())


if __name__ == "__main__":
    main()
