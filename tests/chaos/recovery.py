"""How long nights that lost something waited, as the watcher saw it: from the last moment at which all was well.

A night loses its worker, its place in the queue or its record, and has recovered when a worker has it again (or it is
published). Where a worker had it, all was well at its last renewal of the lease, which comes every quarter of a lease:
so much at most is counted too long. A night that waits for its turn has lost nothing.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.machine import OVER, STAGES, Night

GONE = "gone"
"""From the board: Redis was emptied."""


@dataclass
class Hold:
    """One state of a night; seconds of the watcher's clock."""

    phase: str
    stage: str
    owner: str | None
    updated: float
    first: float
    last: float
    """When it was last known to be right."""

    @property
    def rank(self) -> tuple[int, int]:
        """How far the night has come: any step but a step up is a loss."""
        if self.phase in OVER:
            return len(STAGES), 0
        if self.phase in (GONE, "waiting"):
            return -1, 0
        return STAGES.index(self.stage), int(self.phase == "running")


@dataclass
class Recovery:
    """A night's loss, and how long it lasted."""

    run: str
    seconds: float


@dataclass
class Timeline:
    """Every night's states in order."""

    holds: dict[str, list[Hold]] = field(default_factory=dict)

    def look(self, nights: Sequence[Night], now: float) -> None:
        """Write down what the board holds now."""
        for night in nights:
            self._see(night, now)
        for run in self.holds.keys() - {night.run for night in nights}:
            last = self.holds[run][-1]
            if last.phase not in (*OVER, GONE):  # what is over may be forgotten
                self.holds[run].append(Hold(GONE, last.stage, None, 0.0, now, now))

    def _see(self, night: Night, now: float) -> None:
        holds = self.holds.setdefault(night.run, [])
        last = holds[-1] if holds else None
        if last is None or (last.phase, last.stage, last.owner) != (night.phase, night.stage, night.owner):
            holds.append(Hold(night.phase, night.stage, night.owner, night.updated, now, now))
        elif night.phase != "running" or last.updated != night.updated:
            last.last, last.updated = now, night.updated

    def recoveries(self) -> list[Recovery]:
        """Return every loss that ended."""
        return [Recovery(run, seconds) for run, holds in self.holds.items() for seconds in gaps(holds)]


def gaps(holds: Sequence[Hold]) -> list[float]:
    """Return the seconds of each loss in a night's states."""
    found: list[float] = []
    lost: float | None = None
    for before, after in itertools.pairwise(holds):
        if lost is None and before.rank >= (0, 0) and after.rank <= before.rank:
            lost = before.last
        if lost is not None and (after.phase == "running" or after.phase == "published"):
            found.append(after.first - lost)
            lost = None
    return found
