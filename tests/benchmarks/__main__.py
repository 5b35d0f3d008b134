"""`make bench`: every benchmark, each beside its peers; name some to run only those."""

import sys

from tests.attacks import flips
from tests.benchmarks import (
    bench_ab,
    bench_jobs,
    bench_pareto,
    bench_quantize,
    bench_read,
    bench_real,
    bench_score,
    bench_serve,
    bench_steps,
    bench_targets,
    bench_teacher,
    bench_warm,
)

ALL = {
    "read": bench_read, "teacher": bench_teacher, "real": bench_real, "score": bench_score, "ab": bench_ab,
    "jobs": bench_jobs, "quantize": bench_quantize, "pareto": bench_pareto, "steps": bench_steps, "serve": bench_serve,
    "warm": bench_warm, "targets": bench_targets, "flips": flips,
}  # fmt: skip

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        ALL[name].main()
