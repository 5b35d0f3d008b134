"""Swaps under traffic: sound versions and broken ones in turn become champion while clients score without a pause.

`python -m tests.runtime.swaps 1000` runs the whole; the suite runs a part of it.
"""

import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from recsys_kd.runtime.ranker import Ranker
from recsys_kd.runtime.service import Service
from recsys_kd.runtime.watcher import Watcher
from tests.attacks.small import Original
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST, World, another_models, broken

SOUND, CLIENTS = 8, 4


@dataclass
class Client:
    """Scores until told to stop; keeps what was not as it should be."""

    service: Service
    expected: dict[str, np.ndarray]
    stop: threading.Event
    answered: int = 0
    versions: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def run(self) -> None:
        while not self.stop.wait(0.001):
            try:
                answer = self.service.score(REQUEST, CANDIDATES, FEATURES)
            except Exception as error:  # noqa: BLE001 - any that comes out is a finding
                self.wrong.append(repr(error))
                continue
            if not np.array_equal(answer.scores, self.expected[answer.digest]):
                self.wrong.append(f"version {answer.version}: {answer.scores}")
            self.answered += 1
            self.versions.add(answer.version)


@dataclass
class Outcome:
    """What came of it; memory in bytes, after a tenth of the swaps and at the end."""

    swaps: int
    refused: dict[str, int]
    answered: int
    versions: set[int]
    wrong: list[str]
    served: list[tuple[int, int]]
    """Per promotion: the version that should serve, and the one that did."""
    memory: tuple[int, int]
    resident: int


def register(world: World, folder: Path) -> tuple[list[int], list[int], dict[str, np.ndarray]]:
    """Return the numbers of sound and of broken versions, and the scores that each sound one gives."""
    paths = [world.artifact(seed) for seed in range(SOUND)]
    expected = {p.name: Ranker.open(p).score(REQUEST, CANDIDATES, FEATURES) for p in paths}
    sound = [world.register(p) for p in paths]
    bad = [world.register(p) for p in broken(folder, Original(paths[0]))]
    bad += [world.register(paths[1], "1" * 64), world.register(another_models(world.store))]
    return sound, bad, expected


def run(folder: Path, swaps: int, seed: int = 0) -> Outcome:
    """Promote `swaps` sound versions with a broken one before each, under traffic."""
    world, rng = World(folder), random.Random(seed)
    sound, bad, expected = register(world, folder)
    world.promote(sound[0])
    watcher = Watcher("shop", world.registry, world.pointers, seconds=0.05, tell=lambda event: None)
    service, stop = Service(watcher), threading.Event()
    watcher.start()
    clients = [Client(service, expected, stop) for _ in range(CLIENTS)]
    threads = [threading.Thread(target=c.run) for c in clients]
    for thread in threads:
        thread.start()
    served, memory, process = [], 0, psutil.Process()
    try:
        for step in range(swaps):
            now = watcher.serving.champion.number
            world.promote(bad[step % len(bad)])
            watcher.poll()
            served.append((now, watcher.serving.champion.number))
            wanted = rng.choice([n for n in sound if n != now])
            world.promote(wanted)
            watcher.poll()
            served.append((wanted, watcher.serving.champion.number))
            if step == swaps // 10:
                memory = process.memory_info().rss
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        watcher.stop()
    return Outcome(
        watcher.swaps - 1,
        dict(watcher.refusals),
        sum(c.answered for c in clients),
        set().union(*(c.versions for c in clients)),
        [w for c in clients for w in c.wrong],
        served,
        (memory, process.memory_info().rss),
        len(watcher.serving.resident()),
    )


def main(swaps: int) -> None:
    """Run, and print what came of it."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), swaps)
    grown = (found.memory[1] - found.memory[0]) / 1e6
    late = sum(wanted != got for wanted, got in found.served)
    print(f"{found.swaps} swaps in {time.perf_counter() - began:.0f} s; {found.answered:,} requests answered")
    print(f"wrong answers: {len(found.wrong)}; another version than the promoted one: {late}; memory {grown:+.1f} MB")
    print(f"refused: {sum(found.refused.values())}, by {len(found.refused)} reasons: {found.refused}")
    sys.exit(bool(found.wrong or late))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
