"""`python -m tests.chaos.soak`: many nights of three models with random faults; memory and disk stay flat after gc.

Every few seconds it writes down what the workers hold, what the disk holds and what Redis holds. Flat: the mean of the
last quarter of the samples is at most a fifth above that of the second quarter.
"""

import argparse
import json
import shutil
import signal
import statistics
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from redis.exceptions import RedisError

from recsys_kd.errors import RecsysKdError
from tests.chaos.faults import Faults
from tests.chaos.run import finish, judge
from tests.chaos.world import Limits, World

ALLOWED_GROWTH = 1.2
KEPT = 2
"""Versions that gc leaves of each model: disk is full of them after as many nights."""
_EVERY_SECONDS = 5.0


@dataclass
class Sample:
    """Megabytes at one moment: of the standing workers, of store and desk, of both Redis servers."""

    at: float
    nights: int
    workers: float
    disk: float
    redis: float


def sample(world: World, began: float) -> Sample:
    """Return what is held now; the nights' own processes come and go and are left out."""
    standing = [p for p in world.ours() if "jobs.child" not in _command(p)]
    memory = sum(_rss(p) for p in standing)
    disk = sum(p.stat().st_size for name in ("store", "desk") for p in _files(world.shop / name))
    redis = sum(s.client().info("memory")["used_memory"] for s in (world.broker, world.registry_server))
    nights = sum(len(world.registry.state(m).nights) for m in world.models)
    return Sample(round(time.monotonic() - began, 1), nights, memory / 1e6, disk / 1e6, redis / 1e6)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]


def growth(values: list[float]) -> float:
    """Return the mean of the last quarter over that of the second quarter."""
    quarter = len(values) // 4
    return statistics.mean(values[-quarter:]) / statistics.mean(values[quarter : 2 * quarter])


def soak(folder: Path, seed: int, models: int, nights: int, every: tuple[float, float], patience: float) -> bool:
    """Run; print a table; return whether all was well."""
    began = time.monotonic()
    world = World(folder, models, nights, Limits(keep_versions=KEPT))
    samples: list[Sample] = []
    try:
        world.want()
        world.start()
        plan = Faults(world, seed)
        stop = threading.Event()
        striker = threading.Thread(target=_strike, args=(plan, every, stop))
        striker.start()
        while not world.done() and time.monotonic() - began < patience:
            time.sleep(_EVERY_SECONDS)
            _take(world, began, samples)
        stop.set()
        striker.join()
        plan.settle()
        found = finish(world, plan, 120)
    finally:
        orphans = world.close()
    verdict = judge(world, plan, found, orphans, seed, time.monotonic() - began)
    (folder / "samples.json").write_text(json.dumps([asdict(s) for s in samples], indent=0))
    print(verdict.table())
    flat = True
    for name in ("workers", "disk"):
        values = [getattr(s, name) for s in samples]
        times = growth(values)
        flat &= times <= ALLOWED_GROWTH
        print(f"{name:<8} {values[len(values) // 4]:.1f} MB -> {values[-1]:.1f} MB, growth {times:.2f}")
    last = samples[-1]
    early = samples[len(samples) // 4]
    print(f"redis    {early.redis:.1f} MB at {early.nights} nights -> {last.redis:.1f} MB at {last.nights}")
    return flat and not verdict.problems


def _strike(plan: Faults, every: tuple[float, float], stop: threading.Event) -> None:
    while not stop.wait(plan.random.uniform(*every)):
        try:
            plan.strike()
        except RecsysKdError:
            continue


def _take(world: World, began: float, samples: list[Sample]) -> None:
    try:
        samples.append(sample(world, began))
    except (RecsysKdError, RedisError, OSError):
        return  # Redis is away, or a file just went: the next look is soon


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--every", type=float, default=15.0, help="Seconds between two faults, about.")
    parser.add_argument("--patience", type=float, default=7200)
    parser.add_argument("--folder", type=Path, default=Path("build/soak"))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # so that what was started is stopped
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    every = (given.every / 2, given.every * 1.5)
    well = soak(given.folder.resolve(), given.seed, given.models, given.nights, every, given.patience)
    sys.exit(not well)


if __name__ == "__main__":
    main()
