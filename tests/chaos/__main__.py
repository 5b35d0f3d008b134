"""`make chaos`: at least 300 faults over nights of three models; ends with a table; exit code 1 on any problem."""

import argparse
import shutil
import signal
import sys
from pathlib import Path

from tests.chaos.run import run


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--nights", type=int, default=25)
    parser.add_argument("--folder", type=Path, default=Path("build/chaos"))
    parser.add_argument("--patience", type=float, default=1800, help="Seconds for the nights that are left at the end.")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # so that what was started is stopped
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    folder = given.folder.resolve()
    verdict = run(folder, given.seed, given.faults, given.models, given.nights, (0.1, 1.2), given.patience)
    print(verdict.table())
    (folder / "table.txt").write_text(verdict.table())
    sys.exit(bool(verdict.problems))


if __name__ == "__main__":
    main()
