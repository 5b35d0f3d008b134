"""Negatives and histories of events in time order, without a look into the future."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_ROUNDS = 30


@dataclass(frozen=True)
class Events:
    """Positive events sorted by time: codes of user and item [N], time [N], and how many items there are."""

    user: Ints
    item: Ints
    time: Ints
    items: int

    @cached_property
    def appeared(self) -> tuple[Ints, Ints]:
        """Items in the order of their first event, and per event how many of them have appeared by its time."""
        first = np.unique(self.item, return_index=True)[1]
        order = np.argsort(first, kind="stable")
        seen_at = self.time[first[order]]
        return order.astype(np.int64), np.searchsorted(seen_at, self.time, side="right").astype(np.int64)

    @cached_property
    def own(self) -> tuple[Ints, Ints]:
        """Sorted (user, item) pairs as one number, and the time at which each was first seen."""
        pair = self.user * self.items + self.item
        keys, first = np.unique(pair, return_index=True)
        return keys, self.time[first]

    @cached_property
    def together(self) -> tuple[Ints, Ints]:
        """Per event a number of its user's moment, and the sorted (moment, item) pairs as one number."""
        moment = np.zeros(len(self.user), dtype=np.int64)
        order = np.lexsort((self.time, self.user))
        user, time = self.user[order], self.time[order]
        moment[order[1:]] = np.cumsum((user[1:] != user[:-1]) | (time[1:] != time[:-1]))
        return moment, np.unique(moment * self.items + self.item)

    @cached_property
    def repeated(self) -> int:
        """How many events are of an item that their user had before."""
        keys, first_time = self.own
        at = np.searchsorted(keys, self.user * self.items + self.item)
        return int((first_time[at] < self.time).sum())


def draw_negatives(
    events: Events,
    index: Ints,
    count: int,
    popular: float,
    all_known: bool,
    rng: np.random.Generator,
    past: bool = False,
) -> Ints:
    """Return item codes [len(index), count], distinct per event; -1 where a user has had nearly everything.

    A negative has appeared by the event's time (unless `all_known`) and is none of the user's items so far, or with
    `past` none of those that the user has at the event's time: where users have items again, a history that holds a
    candidate would else tell its label, since all such candidates were positives.
    """
    mine = _is_of_moment if past else _is_own
    drawn = np.full((len(index), count), -1, dtype=np.int64)
    for _ in range(_ROUNDS):
        row, column = np.nonzero(drawn < 0)
        if len(row) == 0:
            break
        event = index[row]
        proposed = _propose(events, event, popular, all_known, rng)
        good = ~mine(events, event, proposed) & (proposed != events.item[event])
        good &= ~(drawn[row] == proposed[:, None]).any(axis=1)
        drawn[row[good], column[good]] = proposed[good]
        _drop_repeats(drawn)
    return drawn


def _propose(events: Events, event: Ints, popular: float, all_known: bool, rng: np.random.Generator) -> Ints:
    order, available = events.appeared
    limit = np.full(len(event), events.items) if all_known else available[event]
    uniform = order[(rng.random(len(event)) * limit).astype(np.int64)]
    # The item of an earlier event (by time; any event where all are known): popularity as it was then.
    until = (
        np.full(len(event), len(events.user))
        if all_known
        else np.searchsorted(events.time, events.time[event], side="right")
    )
    earlier = events.item[(rng.random(len(event)) * until).astype(np.int64)]
    return np.where(rng.random(len(event)) < popular, earlier, uniform)


def _is_own(events: Events, event: Ints, item: Ints) -> NDArray[np.bool_]:
    keys, first_time = events.own
    pair = events.user[event] * events.items + item
    at = np.searchsorted(keys, pair).clip(max=len(keys) - 1)
    mine: NDArray[np.bool_] = (keys[at] == pair) & (first_time[at] <= events.time[event])
    return mine


def _is_of_moment(events: Events, event: Ints, item: Ints) -> NDArray[np.bool_]:
    moment, keys = events.together
    pair = moment[event] * events.items + item
    mine: NDArray[np.bool_] = keys[np.searchsorted(keys, pair).clip(max=len(keys) - 1)] == pair
    return mine


def _drop_repeats(drawn: Ints) -> None:
    """Set the later of two equal entries of a row to -1."""
    order = np.argsort(drawn, axis=1, kind="stable")
    ordered = np.take_along_axis(drawn, order, axis=1)
    again = np.zeros(drawn.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], (ordered[:, 1:] == ordered[:, :-1]), axis=1)
    drawn[again] = -1


def histories(events: Events, limit: int) -> tuple[Ints, Ints, Ints]:
    """Return items by (user, time), and per event the start and end of its last `limit` strictly earlier items."""
    n = len(events.user)
    order = np.lexsort((np.arange(n), events.user))
    user, time = events.user[order], events.time[order]
    new_user = np.append(True, user[1:] != user[:-1])
    new_moment = new_user | np.append(True, time[1:] != time[:-1])
    place = np.arange(n)
    first_of_user = np.maximum.accumulate(np.where(new_user, place, 0))
    first_of_moment = np.maximum.accumulate(np.where(new_moment, place, 0))
    starts, ends = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    ends[order] = first_of_moment
    starts[order] = np.maximum(first_of_user, first_of_moment - limit)
    return events.item[order], starts, ends
