"""Reading 60M narrow rows: ours with every check and global deduplication, beside the bare reader underneath; and
encoding them, whose memory grows with the rows: bytes a row are printed.

Each is a process of its own, so that its peak memory is its own. The counts are checked against what was planted.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.table import show

ROWS = int(os.environ.get("BENCH_ROWS", "60000000"))
BAD, AGAIN = 1000, 500
_GROUP = 1_000_000

OURS = """
import json, sys, tempfile, time
from pathlib import Path
from recsys_kd.data.log import open_log
from recsys_kd.data.read import scan
from recsys_kd.settings import DataConfig, SplitConfig
config = DataConfig.model_validate({"path": sys.argv[1]})
start = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    counts = scan(open_log(config, SplitConfig()), Path(folder) / "q.parquet", Path(folder) / "spill").counts
found = [counts.read, counts.bad, counts.deduplicated]
"""
ENCODE = """
import json, sys, time
from pathlib import Path
from recsys_kd.data.encode import encode
from recsys_kd.settings import DataConfig, SplitConfig
config = DataConfig.model_validate({"path": sys.argv[1]})
start = time.perf_counter()
split = SplitConfig(validation_days=0.05, test_days=0.05)
counts = encode(config, split, Path(sys.argv[1]).with_name("encoded")).counts
found = [counts.read, counts.bad, counts.deduplicated]
"""
DEFAULTS = """
import json, sys, time
import pyarrow.dataset as ds
start, rows = time.perf_counter(), 0
for batch in ds.dataset(sys.argv[1]).scanner(batch_size=65536).to_batches():
    rows += batch.num_rows
found = [rows, None, None]
"""
BARE = """
import json, sys, time
from pathlib import Path
from recsys_kd.data.files import open_parquet, read_batches
start, rows, path = time.perf_counter(), 0, Path(sys.argv[1])
for batch in read_batches(open_parquet(path), path, ["user_id", "item_id", "timestamp", "label"]):
    rows += batch.num_rows
found = [rows, None, None]
"""
END = """
seconds = time.perf_counter() - start
# Not getrusage: its peak is inherited from the parent that forked. Pages of mapped files count here too, though the
# system may take those back.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"found": found, "seconds": seconds, "peak": peak}))
"""


def write(path: Path) -> None:
    """Write the log with `BAD` impossible labels and `AGAIN` repeated events planted in it."""
    rng = np.random.default_rng(0)
    schema = pa.schema(
        [("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64()), ("label", pa.int8())]
    )
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for start in range(0, ROWS, _GROUP):
            n = min(_GROUP, ROWS - start)
            columns = {
                "user_id": rng.integers(0, 5_000_000, n),
                "item_id": rng.integers(0, 1_000_000, n),
                "timestamp": 1_700_000_000 + np.arange(start, start + n) // 20,
                "label": rng.integers(0, 2, n).astype(np.int8),
            }
            if start == 0:
                columns["label"][:BAD] = -1
                for values in columns.values():
                    values[-AGAIN:] = values[-2 * AGAIN : -AGAIN]
            writer.write_table(pa.table(columns, schema=schema))


def run() -> list[dict[str, object]]:
    """Return a row per reader."""
    out = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        write(path)
        for name, code in (
            ("pyarrow scanner, defaults", DEFAULTS),
            ("our reader, bare", BARE),
            ("our scan, all checks", OURS),
            ("our scan and encoding", ENCODE),
        ):
            done = subprocess.run(
                [sys.executable, "-c", code + END, str(path)], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout)
            read, bad, again = found["found"]
            assert read == ROWS, f"{name}: {read} rows of {ROWS}"
            assert bad in (None, BAD) and again in (None, AGAIN), f"{name}: {bad} bad, {again} repeated"
            out.append(
                {
                    "reader": name,
                    "rows/s": f"{ROWS / found['seconds']:,.0f}",
                    "peak MB": f"{found['peak'] / 1e6:.0f}",
                    "peak B/row": f"{found['peak'] / ROWS:.0f}",
                    "bad": bad,
                    "repeated": again,
                }
            )
    return out


def main() -> None:
    """Print the table."""
    show(f"read-{ROWS}", run())


if __name__ == "__main__":
    main()
