"""Rows that a model has learned from can't judge it: logs that reach into its days are refused."""

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.flow.ab_refs import Ref
from recsys_kd.settings import milliseconds, utc


class SeenInTraining(InputError):
    """The log shares days with those that a model was trained or tuned on."""


class BadTime(InputError):
    """A time is not ISO 8601, or no time that a log of this shop can have."""


FIRST_TIME, LAST_TIME = milliseconds("1990-01-01"), milliseconds("2100-01-01")
WHICH_UNIT = "is data.timestamp_unit in the recipe the log's (s, ms, us or ns)? Mend it"


def instant(text: str) -> int:
    """Return milliseconds UTC of an ISO 8601 text. Raises: BadTime."""
    try:
        return milliseconds(text)
    except ValueError:
        raise BadTime(f"--since: '{text}' is not a time; write it as 2026-01-31 or 2026-01-31T12:00") from None


def check_unseen(refs: list[Ref], stamp: NDArray[np.int64]) -> tuple[str, ...]:
    """Raise SeenInTraining if rows (ms UTC [N]) lie within the days that a model learned from; return notes.

    Training and validation days both count: on the latter a model was stopped, calibrated and planned. Rows from before
    them raise BadTime: they are training rows in another unit, or days whose outcome the model's history holds.
    """
    notes = _absurd(refs, stamp)
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
                f"'{ref.name}' learned from {utc(seen['first'])} to {utc(seen['last'])}, and "
                f"{int(inside.sum()):,} of {len(stamp):,} rows of this log lie within: it would be asked what it was "
                "told. Give a later log, or "
                f"--since {utc(seen['last'] + 1000)}"
            )
        _check_not_before(ref.name, seen["first"], stamp)
    return tuple(notes)


def _check_not_before(name: str, first: int, stamp: NDArray[np.int64]) -> None:
    before = stamp < first
    if before.any():
        raise BadTime(
            f"timestamp: {int(before.sum()):,} of {len(stamp):,} rows are from before '{name}' began to learn "
            f"({utc(first)}), the first from {utc(int(stamp.min()))}: {WHICH_UNIT}, or give a later log"
        )


def _absurd(refs: list[Ref], stamp: NDArray[np.int64]) -> list[str]:
    """Return a note on times that no shop has; raise BadTime where an artifact's training days depend on them."""
    wrong = (stamp < FIRST_TIME) | (stamp >= LAST_TIME)
    if not wrong.any():
        return []
    told = (
        f"timestamp: {int(wrong.sum()):,} of {len(stamp):,} rows are from before 1990 or after 2100, the first from "
        f"{utc(int(stamp[np.argmax(wrong)]))}: {WHICH_UNIT}"
    )
    if any(ref.manifest is not None for ref in refs):
        raise BadTime(told)
    return [told]
