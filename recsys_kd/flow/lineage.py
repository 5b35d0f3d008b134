"""Rows that a model has learned from can't judge it: logs that reach into its days are refused."""

import datetime as dt

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.flow.ab_refs import Ref
from recsys_kd.settings import milliseconds


class SeenInTraining(InputError):
    """The log shares days with those that a model was trained or tuned on."""


class BadTime(InputError):
    """A time is not ISO 8601."""


def instant(text: str) -> int:
    """Return milliseconds UTC of an ISO 8601 text. Raises: BadTime."""
    try:
        return milliseconds(text)
    except ValueError:
        raise BadTime(f"--since: '{text}' is not a time; write it as 2026-01-31 or 2026-01-31T12:00") from None


def day_of(stamp: int) -> str:
    """Return the UTC instant of milliseconds as ISO text, to the second."""
    return dt.datetime.fromtimestamp(stamp / 1000, dt.UTC).isoformat(timespec="seconds")


def check_unseen(refs: list[Ref], stamp: NDArray[np.int64]) -> tuple[str, ...]:
    """Raise SeenInTraining if rows (ms UTC [N]) lie within the days that a model learned from; return notes.

    Training and validation days both count: on the latter a model was stopped, calibrated and planned.
    """
    notes = []
    for ref in refs:
        if ref.manifest is None:
            continue
        seen = ref.manifest.lineage.seen
        if not seen:
            notes.append(f"{ref.name} does not say which days it learned from; make sure that this log is later")
            continue
        inside = (stamp >= seen["first"]) & (stamp <= seen["last"])
        if inside.any():
            raise SeenInTraining(
                f"'{ref.name}' learned from {day_of(seen['first'])} to {day_of(seen['last'])}, and "
                f"{int(inside.sum()):,} of {len(stamp):,} rows of this log lie within: it would be asked what it was "
                "told. Give a later log, or "
                f"--since {day_of(seen['last'] + 1000)}"
            )
    return tuple(notes)
