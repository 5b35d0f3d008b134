"""What a serving process pays before its first score, each measured in a fresh interpreter of its own."""

import subprocess
import sys
from pathlib import Path
from statistics import median

_IMPORT = """
import time; start = time.perf_counter()
import recsys_kd.runtime.ranker
print((time.perf_counter() - start) * 1e3)
"""
_OPEN = """
import sys, time
from recsys_kd.runtime.ranker import Ranker
start = time.perf_counter()
ranker = Ranker.open(sys.argv[1])
print(time.perf_counter() - start)
"""
_RESIDENT = """
import sys
from recsys_kd.runtime.ranker import Ranker
ranker = Ranker.open(sys.argv[1])
for start in range(0, 1_000_000, 1_000):
    ranker.score({"user_id": start}, list(range(start, start + 1_000)))
status = open("/proc/self/status").read()
print(int(status.split("VmRSS:")[1].split()[0]) / 1024)
"""


def _figure(code: str, *arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


def import_ms() -> float:
    """Return the milliseconds that importing the scorer takes, NumPy included: the median of seven."""
    return median(_figure(_IMPORT) for _ in range(7))


def open_seconds(artifact: Path) -> float:
    """Return the seconds that opening and verifying an artifact take: the median of five."""
    return median(_figure(_OPEN, str(artifact)) for _ in range(5))


def resident_over_mb(artifact: Path) -> float:
    """Return the megabytes that a process which scored every item holds beyond the artifact's own bytes."""
    size = sum(file.stat().st_size for file in artifact.iterdir()) / 2**20
    return _figure(_RESIDENT, str(artifact)) - size
