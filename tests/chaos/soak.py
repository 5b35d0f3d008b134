"""`python -m tests.chaos.soak`: many nights of three models with random faults; memory and disk stay flat after gc.

The shop keeps a few days of its log, as shops do, so that every night is as large as the one before. Every few seconds
the run writes down what its processes, its disk and both Redis servers hold. Flat: the mean of the last quarter of the
samples is at most a fifth above that of the second quarter. Every night tidies up after itself, so the samples are
taken after gc; those on the disk include the nights that are at work just then.
"""

import argparse
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from redis.exceptions import RedisError

from recsys_kd.errors import RecsysKdError
from tests.chaos.faults import Faults
from tests.chaos.held import Sample, left_over, sample, write
from tests.chaos.run import finish, judge
from tests.chaos.world import Limits, World

KEPT = 2
"""Versions that gc leaves of each model: the disk is full of them after as many nights."""
DAYS = 5
"""Of its log the shop keeps, up to the oldest night that is open."""
SHOPS_OWN = {"teacher": {"kind": "precomputed", "column": "propensity", "scores": "probability"}}
"""A teacher that the log has already: a night takes seconds of processor time. `make chaos` trains teachers."""
_EVERY_SECONDS = 5.0


def soak(folder: Path, seed: int, models: int, nights: int, every: tuple[float, float], patience: float) -> bool:
    """Run; print a table; return whether all was well."""
    began = time.monotonic()
    limits = Limits(keep_versions=KEPT, reconcile=5)
    world = World(folder, models, nights, limits, heavy=models, watch=1.0, recipe=SHOPS_OWN, warm=True)
    samples: list[Sample] = []
    plan, stop = Faults(world, seed), threading.Event()
    striker = threading.Thread(target=_strike, args=(plan, every, stop), daemon=True)
    try:
        world.want()
        world.start()
        striker.start()
        while not world.done() and time.monotonic() - began < patience:
            time.sleep(_EVERY_SECONDS)
            _take(world, plan, began, samples)
        stop.set()
        striker.join()
        plan.settle()
        world.tamper()
        found = finish(world, plan, 120)
        stray = left_over(world, KEPT)
    finally:
        stop.set()
        orphans = world.close()
    verdict = judge(world, plan, found, orphans, seed, time.monotonic() - began)
    flat, table = write(samples, folder)
    print(verdict.table(), "", table, *(f"LEFT OVER {line}" for line in stray), sep="\n", flush=True)
    return flat and not verdict.problems and not stray


def _strike(plan: Faults, every: tuple[float, float], stop: threading.Event) -> None:
    while not stop.wait(plan.random.uniform(*every)):
        try:
            plan.strike()
        except RecsysKdError:
            continue


def _take(world: World, plan: Faults, began: float, samples: list[Sample]) -> None:
    """Drop the days of the log that no open night reads, then take a sample."""
    try:
        samples.append(sample(world, began))
        with plan.busy:
            _roll(world)
    except (RecsysKdError, RedisError, OSError):
        return  # Redis is away, or a file just went: the next look is soon
    if len(samples) % 24 == 0:
        print(samples[-1].line(), flush=True)


def _roll(world: World) -> None:
    published = [set(world.registry.state(model).nights) for model in world.models]
    oldest = next((date for date in world.dates if not all(date in nights for nights in published)), None)
    days = sorted((world.shop / "log").glob("day=*"))
    names = [day.name for day in days]
    if f"day={oldest}" in names:  # else all are published; or the registry was emptied just now
        for day in days[: max(0, names.index(f"day={oldest}") + 1 - DAYS)]:
            shutil.rmtree(day)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--every", type=float, default=4.0, help="Seconds between two faults, about.")
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
