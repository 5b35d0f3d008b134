"""The KServe plugin over gRPC with raw tensors, beside a trivial model in the same process, in turns, in the same run.

1,000 candidates out of 1M items. Then p99 with and without swaps, for which every version is verified and warmed anew,
and how long two processes take to serve a new version. `RECSYS_KD_BENCH_SECONDS` sets the length of each measurement.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from recsys_kd.artifact.manifest import Lineage
from recsys_kd.artifact.write import write_artifact
from recsys_kd.flow.conformance_models import MODEL, promote
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.attacks.small import golden
from tests.benchmarks.table import show
from tests.paths import PATHS
from tests.students import Shape, student

ROOT = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("RECSYS_KD_BENCH_SECONDS", "8"))
SHAPE = Shape(items=1_000_000, users=200_000, width=32, first=64, hidden=(32,), rank=16)
VERSIONS, POLL, ROUNDS = 4, 1.0, 3
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *PATHS])}


def make(store: Path) -> list[Path]:
    """Write artifacts that differ by a bias; speed does not depend on the weights."""
    model, _ = student(SHAPE)
    lineage = Lineage(MODEL, "2026-01-01T00:00:00+00:00", "0" * 64, "0" * 64, "0" * 64)
    found = []
    for n in range(VERSIONS):
        arrays = model.arrays | {"bias": np.array([0.01 * n], np.float32)}
        made = dataclasses.replace(model, arrays=arrays)
        found.append(write_artifact(store, MODEL, made, lineage, (golden(made),)).path)
    return found


@contextmanager
def host(registry: Path, poll: float = POLL) -> Iterator[tuple[int, int]]:
    """Run a server; yield its ports."""
    command = [sys.executable, "-m", "tests.benchmarks.serve_host", str(registry), str(poll)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        rest, grpc = (int(port) for port in process.stdout.readline().split())  # type: ignore[union-attr]
        yield rest, grpc
    finally:
        process.terminate()
        process.wait()


def load(port: int, clients: int, models: str, seconds: float = SECONDS) -> dict[str, list[float]]:
    """Return the seconds of every call, by model."""
    command = [sys.executable, "-m", "tests.benchmarks.serve_client", str(port), str(seconds), models]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) for _ in range(clients)]
    parts = [json.loads(process.communicate()[0]) for process in running]
    return {model: [t for part in parts for t in part[model]] for model in models.split(",")}


def line(what: str, taken: list[float], peer: list[float]) -> dict[str, object]:
    p50, p99 = np.percentile(taken, [50, 99])
    ratios = [f"{a / b:.2f}" for a, b in zip((p50, p99), np.percentile(peer, [50, 99]), strict=True)]
    times = {"p50 us": f"{p50 * 1e6:.0f}", "p99 us": f"{p99 * 1e6:.0f}"}
    return {"what": what, "calls": len(taken), **times, "p50 ratio": ratios[0], "p99 ratio": ratios[1]}


def beside_a_trivial_model(port: int) -> list[dict[str, object]]:
    rows = []
    for clients in (1, 8):
        taken = load(port, clients, f"{MODEL},trivial")
        rows.append(line(f"{clients} client(s), trivial", taken["trivial"], taken["trivial"]))
        rows.append(line(f"{clients} client(s), ours", taken[MODEL], taken["trivial"]))
    return rows


def during_swaps(port: int, registry: SqliteRegistry, paths: list[Path]) -> list[dict[str, object]]:
    """Return p99 without and with swaps, measured in turns; the median round's ratio is told."""
    quiet, swapped, ratios, swaps = [], [], [], 0
    for _ in range(ROUNDS):
        still = load(port, 1, MODEL)[MODEL]
        stop = threading.Event()

        def swap(stop: threading.Event = stop) -> None:
            nonlocal swaps
            while not stop.wait(POLL):
                swaps += 1
                promote(registry, paths[swaps % len(paths)])

        thread = threading.Thread(target=swap)
        thread.start()
        busy = load(port, 1, MODEL)[MODEL]
        stop.set()
        thread.join()
        quiet += still
        swapped += busy
        ratios.append(np.percentile(busy, 99) / np.percentile(still, 99))
    print(f"{swaps} promotions; p99 with swaps / without: {', '.join(f'{r:.2f}' for r in ratios)}")
    print(f"median {statistics.median(ratios):.2f}")
    return [line("without swaps", quiet, quiet), line("with swaps", swapped, quiet)]


def two_processes(registry_path: Path, registry: SqliteRegistry, paths: list[Path]) -> None:
    """Print how many polls it takes until both serve a new version."""
    with host(registry_path) as first, host(registry_path) as second:
        promote(registry, paths[0])
        time.sleep(2 * POLL)
        number = registry.register(MODEL, paths[2].name, paths[2], {}, "bench").number
        promote(registry, paths[2])
        began = time.monotonic()
        for rest, _ in (first, second):
            url = f"http://127.0.0.1:{rest}/v2/models/{MODEL}/ready"
            while httpx.get(url, timeout=30).headers["x-model-version"] != str(number):
                time.sleep(0.01)
        print(f"two processes serve a new version {(time.monotonic() - began) / POLL:.2f} polls after its promotion")


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        paths = make(Path(name))
        where = Path(name) / "registry.sqlite"
        registry = SqliteRegistry(where)
        promote(registry, paths[0])
        with host(where) as (_, port):
            show("serve", beside_a_trivial_model(port))
            show("serve-swaps", during_swaps(port, registry, paths))
        two_processes(where, registry, paths)


if __name__ == "__main__":
    main()
