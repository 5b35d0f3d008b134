"""Splits by time: training days, then validation, then test; or by a column that says so."""

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.settings import SplitConfig

_DAY_MS = 86_400_000
_NAMES = ("train", "validation", "test")


_FEW = 0.01
"""Share of a log's rows under which those far behind all others are likely to be of a wrong clock."""


class Part(NamedTuple):
    """Rows of a split, and the times of the first and the last, ms UTC."""

    rows: int
    first: int
    last: int


class EmptySplit(InputError):
    """A split holds no rows."""


class BadSplitValue(InputError):
    """The split column holds something else than train, validation and test."""


def split_rank(array: pa.Array, column: str) -> NDArray[np.int8]:
    """Return 0, 1, 2 for train, validation, test [N]. Raises: BadSplitValue."""
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    for value in values:
        if value not in _NAMES:
            raise BadSplitValue(f"split.column: '{column}' holds {value!r}; only train, validation and test are known")
    if encoded.null_count:
        raise BadSplitValue(f"split.column: '{column}' is null in {encoded.null_count} rows; fill it")
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    ranks: NDArray[np.int8] = np.array([_NAMES.index(v) for v in values] or [0], dtype=np.int8)[codes]
    return ranks


def split_times(last: int, config: SplitConfig) -> tuple[int, int]:
    """Return when validation and test begin in a log whose last row is of `last`, all ms UTC."""
    test = last - int(config.test_days * _DAY_MS) + 1
    return test - int(config.validation_days * _DAY_MS), test


def split_bounds(stamp: NDArray[np.generic], rank: NDArray[np.generic] | None, config: SplitConfig) -> dict[str, range]:
    """Return each split's rows in a log sorted by (rank, time); `stamp` is ms UTC. Raises: EmptySplit."""
    n = len(stamp)
    if rank is not None:
        cuts = [int(np.searchsorted(rank, r)) for r in (1, 2)]
    else:
        cuts = [int(np.searchsorted(stamp, t)) for t in split_times(int(stamp[-1]), config)]
    edges = [0, *cuts, n]
    bounds = {name: range(a, b) for name, a, b in zip(_NAMES, edges[:-1], edges[1:], strict=True)}
    empty = next((name for name, rows in bounds.items() if len(rows) == 0), None)
    if empty is not None:
        held = {name: r for name, r in bounds.items() if len(r)}
        raise empty_split(
            empty, {n: Part(len(r), int(stamp[r[0]]), int(stamp[r[-1]])) for n, r in held.items()}, config
        )
    return bounds


def empty_split(name: str, held: Mapping[str, Part], config: SplitConfig) -> EmptySplit:
    """Return the refusal of a split without rows; held: the splits that have some."""
    if config.column:
        return EmptySplit(f"split.column: no row of column '{config.column}' says '{name}'; every split needs rows")
    first, last = _told(min(part.first for part in held.values())), _told(max(part.last for part in held.values()))
    advice = stray_told(held, config) or "choose them to fit"
    return EmptySplit(
        f"split: no rows for '{name}': the log runs from {first} to {last}, with split.validation_days "
        f"{config.validation_days:g} and split.test_days {config.test_days:g}; {advice}"
    )


def stray_told(held: Mapping[str, Part], config: SplitConfig) -> str:
    """Return in words that a few rows lie far behind all others, with what leaves them out; nothing where none do.

    Splits count from the last row: one with a wrong time takes the test days for itself.
    """
    parts, total = list(held.values()), sum(part.rows for part in held.values())
    for number in range(1, len(parts)):
        late, before, after = sum(p.rows for p in parts[number:]), parts[number - 1].last, parts[number].first
        gap = (after - before) / _DAY_MS
        if late < _FEW * total and gap > max(config.validation_days, config.test_days) and not config.column:
            end = dt.datetime.fromtimestamp(before / 1000, dt.UTC).date() + dt.timedelta(days=1)
            return (
                f"{late:,} of {total:,} rows lie {gap:,.0f} days behind all others, which end at {_told(before)}, and "
                f"splits count from the last row: if those times are wrong, `data.window: {{end: {end}}}` puts them "
                "among the bad rows"
            )
    return ""


def _told(stamp: int) -> str:
    return dt.datetime.fromtimestamp(stamp / 1000, dt.UTC).isoformat()
