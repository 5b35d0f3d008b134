"""A float table on disk quantized row by row, beside a plain copy of the file: speed, and peak memory.

BENCH_GB says how large the table is (4). Each is a process of its own, and both end with fsync. Best of three rounds,
the peers taking turns: the machine may be shared.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from recsys_kd.tables import OVERHEAD, CodedRows
from tests.benchmarks.table import show

GB = float(os.environ.get("BENCH_GB", "4"))
DIM, ROUNDS = 64, 3
ROWS = int(GB * 1e9) // (4 * DIM)
_PART = 100_000

COPY = """
import json, os, shutil, sys, time
start = time.perf_counter()
shutil.copyfile(sys.argv[1], sys.argv[2])
with open(sys.argv[2], "rb") as file:
    os.fsync(file.fileno())
"""
OURS = """
import json, sys, time
from pathlib import Path
from recsys_kd.compress.streaming import quantize_file
start = time.perf_counter()
quantize_file(Path(sys.argv[1]), Path(sys.argv[2]), {bits})
"""
END = """
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([seconds, int(status["VmHWM"].split()[0]) * 1024]))
"""
WAYS = {
    "copy of the file": COPY,
    "ours, 8 bits": OURS.format(bits=8),
    "ours, 4 bits": OURS.format(bits=4),
}


def write(path: Path) -> None:
    """Write the table, part by part."""
    table = np.lib.format.open_memmap(path, "w+", np.float32, (ROWS, DIM))
    rng = np.random.default_rng(0)
    part = rng.normal(size=(min(_PART, ROWS), DIM)).astype(np.float32)
    for start in range(0, ROWS, len(part)):
        stop = min(start + len(part), ROWS)
        table[start:stop] = part[: stop - start] * np.float32(1 + start / ROWS)
    table.flush()


def check(source: Path, coded: Path, bits: int) -> None:
    """Raise unless a few rows come back within half a step, as they should."""
    weight = np.load(source, mmap_mode="r")
    width = DIM * bits // 8 + OVERHEAD
    data = np.memmap(coded, np.uint8, "r", coded.stat().st_size - ROWS * width, (ROWS, width))
    at = np.linspace(0, ROWS - 1, 500).astype(np.int64)
    rows = CodedRows(np.array(data[at]), 8 if bits == 8 else 4, DIM)
    error = np.abs(rows.lookup(np.arange(len(at))) - weight[at])
    limit = (0.501 if bits == 8 else 4.5) * rows.scales().astype(np.float32)[:, None]
    if not (error <= limit).all():
        raise RuntimeError(f"{bits} bits: a number is off by {error.max()}")


def run() -> list[dict[str, object]]:
    """Return a row per way."""
    best: dict[str, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "table.npy", Path(folder) / "out"
        write(source)
        for _ in range(ROUNDS):
            for name, code in WAYS.items():
                command = [sys.executable, "-c", code + END, str(source), str(target)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, peak = json.loads(done.stdout)
                if name.startswith("ours"):
                    check(source, target, 8 if "8" in name else 4)
                best[name] = min(best.get(name, (seconds, peak)), (seconds, peak))
                target.unlink()
        size = source.stat().st_size
    copied = best["copy of the file"][0]
    return [
        {
            "how": name, "GB": f"{size / 1e9:.2f}", "s": f"{seconds:.2f}", "MB/s": f"{size / seconds / 1e6:.0f}",
            "speed / copy": f"{copied / seconds:.2f}", "peak MB": f"{peak / 1e6:.0f}",
        }
        for name, (seconds, peak) in best.items()
    ]  # fmt: skip


def main() -> None:
    """Print the table."""
    show("quantize", run())


if __name__ == "__main__":
    main()
