"""What `recsys-kd jobs status` says of a night, and what is to be done about it."""

from dataclasses import replace

import pytest

from jobs.cli import describe
from jobs.machine import Night

NIGHT = Night("shop", "2026-01-05", "recipe.yaml", 0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "shop@2026-01-05  waiting"),
        ({"phase": "running", "stage": "train", "attempts": 2, "seconds": {"prepare": 0.24}},
         "shop@2026-01-05  running  train, attempt 2  prepare 0.2s"),
        ({"phase": "published", "outcome": "live"}, "shop@2026-01-05  published  live"),
        ({"attempts": 1, "reason": "store: /s can't be written"},
         "shop@2026-01-05  waiting  store: /s can't be written  (attempt 1 failed; it is tried again by itself)"),
        ({"waited": 9.0, "reason": "data.path: log does not exist"},
         "shop@2026-01-05  waiting  data.path: log does not exist  (it is tried again by itself)"),
        ({"phase": "dead", "reason": "data.columns.label: no column 'bought'"},
         "shop@2026-01-05  dead  data.columns.label: no column 'bought'  (given up; mend it, then: recsys-kd jobs "
         "retry shop@2026-01-05; more: recsys-kd jobs show shop@2026-01-05)"),
        ({"phase": "cancelled", "reason": "cancelled by ann"},
         "shop@2026-01-05  cancelled  cancelled by ann  (again: recsys-kd jobs retry shop@2026-01-05)"),
    ],
)  # fmt: skip
def test_a_line_says_where_a_night_is_why_and_what_happens_now(changes, line):
    assert describe(replace(NIGHT, **changes)) == line
