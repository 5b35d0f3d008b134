"""What Celery adds to a night: the same night by `recsys-kd run` and by submit, in turns, on the same machine.

The added time is also told within one night: everything but its own process's seconds.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from recsys_kd.data.synth import synthesize
from recsys_kd.data.synth_config import ShopConfig
from tests.benchmarks.table import show
from tests.chaos.world import ROOT, Limits, World

ROWS, PAIRS, NIGHT = 200_000, 3, "2026-01-18"


@dataclass(frozen=True)
class Took:
    """Seconds of a night, of its own process alone, and CPU seconds of all that had a part in it."""

    whole: float
    own: float
    cpu: float


def _recipe(shop: Path, name: str) -> Path:
    recipe = yaml.safe_load((shop / "recipe.yaml").read_text())
    path = shop / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe | {"name": name, "store": f"store-{name}", "work": f"work-{name}"}))
    return path


def _cpu(world: World) -> float:
    """Return CPU seconds of this process's ended children, and of all that the world runs with theirs."""
    standing = 0.0
    for process in world.ours():
        with suppress(psutil.Error):
            standing += sum(process.cpu_times()[:4])
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return standing + ended.ru_utime + ended.ru_stime


def _plain(recipe: Path, world: World) -> Took:
    began, cpu = time.perf_counter(), _cpu(world)
    command = [sys.executable, "-m", "recsys_kd", "run", str(recipe), "--json"]
    done = subprocess.run(command, env=world.environment, cwd=ROOT, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr.decode()[-500:])
    whole = time.perf_counter() - began
    return Took(whole, whole, _cpu(world) - cpu)


def _submitted(recipe: Path, world: World) -> Took:
    """Take the time from submit to published."""
    began, cpu = time.perf_counter(), _cpu(world)
    command = [sys.executable, "-m", "recsys_kd", "submit", str(recipe), "--night", NIGHT]
    subprocess.run(command, env=world.environment, cwd=ROOT, capture_output=True, check=True)
    while (night := world.board.get(f"{recipe.stem}@{NIGHT}")) is None or night.phase != "published":
        if night is not None and night.phase == "dead":
            raise RuntimeError(night.reason)
        time.sleep(0.05)
    whole = time.perf_counter() - began
    return Took(whole, night.seconds["train"], _cpu(world) - cpu)


def _pair(shop: Path, n: int, world: World) -> tuple[Took, Took]:
    """Take both times, the second one first in every other pair: what else the machine does changes slowly."""
    if n % 2:
        submitted = _submitted(_recipe(shop, f"submit-{n}"), world)
        return _plain(_recipe(shop, f"run-{n}"), world), submitted
    return _plain(_recipe(shop, f"run-{n}"), world), _submitted(_recipe(shop, f"submit-{n}"), world)


def _row(n: int, plain: Took, submitted: Took) -> dict[str, object]:
    outside = submitted.whole - submitted.own
    return {
        "pair": n,
        "recsys-kd run, s": f"{plain.whole:.1f}",
        "submit to published, s": f"{submitted.whole:.1f}",
        "ratio": f"{submitted.whole / plain.whole:.3f}",
        "outside the night's stage, s": f"{outside:.2f}",
        "of it": f"{outside / submitted.own:.1%}",
        "run, CPU s": f"{plain.cpu:.1f}",
        "submit, CPU s": f"{submitted.cpu:.1f}",
        "CPU ratio": f"{submitted.cpu / plain.cpu:.3f}",
    }


def main() -> None:
    """Print seconds of both, and what Celery adds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        limits = Limits(stage=3000, visibility=3100, lease=60, reconcile=30)
        world = World(folder, models=1, nights=1, limits=limits, heavy=1)
        try:
            shop = synthesize(ShopConfig(rows=ROWS), folder / "bench")
            world.start()
            rows = [_row(n, *_pair(shop.folder, n, world)) for n in range(PAIRS)]
        finally:
            world.close()
    show("jobs", rows)
    for column in ("ratio", "CPU ratio"):
        print(f"median {column} {statistics.median(float(str(r[column])) for r in rows):.3f}")


if __name__ == "__main__":
    main()
