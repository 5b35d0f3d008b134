"""Splits by time: training days, then validation, then test; or by a column that says so."""

import datetime as dt

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.settings import SplitConfig

_DAY_MS = 86_400_000
_NAMES = ("train", "validation", "test")


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
    for name, rows in bounds.items():
        if len(rows) == 0:
            raise empty_split(name, stamp, config)
    return bounds


def empty_split(name: str, stamp: NDArray[np.generic], config: SplitConfig) -> EmptySplit:
    """Return the refusal of a split without rows in a log whose rows are of these times, ms UTC."""
    if config.column:
        return EmptySplit(f"split.column: no row of column '{config.column}' says '{name}'; every split needs rows")
    first, last = (dt.datetime.fromtimestamp(t / 1000, dt.UTC).isoformat() for t in (stamp.min(), stamp.max()))
    return EmptySplit(
        f"split: no rows for '{name}': the log runs from {first} to {last}, with split.validation_days "
        f"{config.validation_days:g} and split.test_days {config.test_days:g}; choose them to fit"
    )
