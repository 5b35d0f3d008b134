"""A chaos run from start to verdict, and its table."""

import json
import math
import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.errors import RecsysKdError
from recsys_kd.runtime.ranker import Ranker
from tests.chaos.faults import Faults, Struck
from tests.chaos.recovery import Recovery
from tests.chaos.world import Limits, World


@dataclass
class Verdict:
    """What a run came to; `problems` is empty where every promise was kept."""

    seed: int
    faults: list[Struck]
    wanted: int
    published: int
    poisoned: int
    buried: int
    half_artifacts: int
    stale: int
    lost: int
    orphans: int
    restarts: int
    seconds: float
    recoveries: list[Recovery]
    problems: list[str]

    def table(self) -> str:
        """Return the run as text."""
        lines = [f"seed {self.seed}, {self.seconds:.0f} s, {self.restarts} processes started again", ""]
        kinds = Counter(f.kind for f in self.faults)
        hits = Counter(f.kind for f in self.faults if f.run)
        lines += [f"{'fault':<34}{'times':>6}{'aimed at a running night':>26}"]
        lines += [f"{kind:<34}{times:>6}{hits[kind]:>26}" for kind, times in kinds.most_common()]
        lines += [f"{'all':<34}{len(self.faults):>6}{sum(hits.values()):>26}", ""]
        stages = Counter(f.stage for f in self.faults if f.run)
        lines += ["struck in: " + ", ".join(f"{stage} {n}" for stage, n in stages.most_common()), ""]
        rows = {
            "nights wanted": self.wanted,
            "nights published, each exactly once": self.published,
            "poisoned nights": self.poisoned,
            "of these dead letters": self.buried,
            "lost nights": self.lost,
            "half artifacts reachable": self.half_artifacts,
            "stale publications": self.stale,
            "orphan processes": self.orphans,
        }
        lines += [f"{name:<38}{value:>6}" for name, value in rows.items()]
        if self.recoveries:
            p50 = statistics.median(r.seconds for r in self.recoveries)
            most = max(self.recoveries, key=lambda r: r.seconds)
            lines += [
                f"recovery: p50 {p50:.1f} s, max {most.seconds:.1f} s ({most.run}), over {len(self.recoveries)} times "
                "that a night lost its worker, its place in the queue or its record, until a worker had it again"
            ]
        return "\n".join([*lines, *(f"PROBLEM {p}" for p in self.problems)])


def run(
    folder: Path, seed: int, faults: int, models: int, nights: int, pause: tuple[float, float], patience: float,
    kinds: list[tuple[str, str]] | None = None, limits: Limits | None = None, say=print,
) -> Verdict:  # fmt: skip # type: ignore[no-untyped-def]
    """Strike while nights run, let them finish, and look at what there is. `kinds`: these faults, in this order."""
    began = time.monotonic()
    world = World(folder, models, nights, limits or Limits())
    try:
        world.want()
        world.start()
        plan = Faults(world, seed, 60.0) if kinds else Faults(world, seed)
        _strike(world, plan, faults, pause, kinds, patience, say)
        plan.settle()
        world.tamper()
        finished = finish(world, plan, patience)
    finally:
        orphans = world.close()
    return judge(world, plan, finished, orphans, seed, time.monotonic() - began)


def _strike(world, plan, faults, pause, kinds, patience, say) -> None:  # type: ignore[no-untyped-def]
    total = len(kinds) if kinds else faults
    while len(plan.log) < total:
        time.sleep(plan.random.uniform(*pause))
        if not kinds:
            _await_share(world, plan, total, patience)
        try:
            struck = plan.carry_out(*kinds[len(plan.log)]) if kinds else plan.strike()
        except RecsysKdError as error:
            say(f"fault not carried out: {error}")
            continue
        say(f"{len(plan.log):>4}  {struck.kind:<34} {struck.stage:<8} {struck.run}")


def share(total: int, nights: int, under_way: int, published: int) -> int:
    """Return how many of all faults may have struck by now: as many per night, whatever the machine's speed.

    Struck without a pause no night would come as far as its publication, and none of its later stages would be hit.
    """
    return min(total, math.ceil(total * (published + under_way) / nights))


def _await_share(world: World, plan: Faults, total: int, patience: float) -> None:
    nights, models = len(world.models) * len(world.dates), len(world.models)
    deadline = time.monotonic() + patience  # nights that never come: `finish` tells which
    while len(plan.log) >= share(total, nights, models, len(world.seen.digests)) and time.monotonic() < deadline:
        time.sleep(0.1)  # the watcher looks as often


def finish(world: World, plan: Faults, patience: float) -> dict:  # type: ignore[type-arg]
    """Wait for all nights, then read what the registry and the store hold while both are up."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and not (world.done() and _buried(world, plan) == plan.poisoned):
        time.sleep(0.5)
    time.sleep(2.0)
    states = {model: world.registry.state(model) for model in world.models}
    audits = {model: world.registry.audit(model) for model in world.models}
    found = {"states": states, "audits": audits, "buried": _buried(world, plan), "half": [], "folders": 0}
    for model, state in states.items():
        for number, version in state.versions.items():
            if number in state.collected:
                continue
            try:
                Ranker.open(version.path)
            except (ArtifactRefused, OSError) as error:
                found["half"].append(f"{model} {number}: {error}")
    return found


def _buried(world: World, plan: Faults) -> set[str]:
    try:
        nights = {n.run: n.phase for n in world.board.all()}
    except RecsysKdError:
        return set()
    return {run for run in plan.poisoned if nights.get(run) == "dead"}


def judge(world, plan, found, orphans, seed, seconds) -> Verdict:  # type: ignore[no-untyped-def]
    problems = list(world.seen.problems)
    wanted = {(model, date) for model in world.models for date in world.dates}
    published = {(m, night) for m, state in found["states"].items() for night in state.nights}
    problems += [f"lost: {model}@{date}" for model, date in sorted(wanted - published)]
    problems += [f"nobody wanted {model}@{date}" for model, date in sorted(published - wanted)]
    for model, events in found["audits"].items():
        times = Counter(e.why for e in events if e.action.startswith("publish"))
        problems += [f"{model}: {why} published {n} times" for why, n in times.items() if n > 1]
    problems += found["half"]
    problems += [f"not a dead letter: {run}" for run in sorted(plan.poisoned - found["buried"])]
    problems += [f"orphan: {line}" for line in orphans]
    (world.folder / "faults.json").write_text(json.dumps([asdict(f) for f in plan.log], indent=1))
    return Verdict(
        seed, plan.log, len(wanted), len(published & wanted), len(plan.poisoned), len(found["buried"]),
        len(found["half"]), len(world.seen.problems), len(wanted - published), len(orphans),
        world.supervisor.restarts, seconds, world.seen.timeline.recoveries(), problems,
    )  # fmt: skip
