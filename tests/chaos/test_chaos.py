"""The short form of `make chaos`: one fault of most kinds, in a fixed order, against real Redis and real workers."""

import pytest

from tests.chaos.run import run
from tests.chaos.world import World

FAULTS = [
    ("kill the pool process", "train"),
    ("poison recipe", "prepare"),
    ("stop past the lease", "train"),
    ("duplicate delivery", "train"),
    ("Redis empty after restart", "train"),
    ("second beat", "prepare"),
    ("store unwritable", "train"),
    ("registry empty after restart", "publish"),
    ("kill the worker", "train"),
    ("disk full", "train"),
    ("kill Redis", "train"),
    ("clock jump", "train"),
    ("kill the night's process", "train"),
]


@pytest.mark.timeout(900)  # seconds on an idle machine, minutes on a busy one
def test_nights_are_published_once_whatever_happens(tmp_path, capsys):
    verdict = run(tmp_path, 1, 0, 2, 1, (0.1, 0.5), 500, kinds=usable())
    print(verdict.table())
    assert verdict.problems == [], capsys.readouterr().out
    assert verdict.wanted == verdict.published == 2 and verdict.poisoned == verdict.buried == 1
    assert (verdict.lost, verdict.half_artifacts, verdict.stale, verdict.orphans) == (0, 0, 0, 0)


def usable():
    """Return the faults of this machine: clock and disk need a C compiler."""
    return [f for f in FAULTS if World.compiler() or f[0] not in ("disk full", "clock jump")]
