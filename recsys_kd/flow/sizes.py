"""Which sizes are tried: a ceiling is no aim where what fills it is too slow."""

from collections.abc import Callable
from math import isqrt

from recsys_kd.compress.plan import BudgetTooSmall
from recsys_kd.flow.options import Option, Wanted

Tried = Callable[[int], list[Option]]
"""Bytes -> every form of an artifact of at most so many, those that keep a limit not with why. Raises:
BudgetTooSmall."""
_NARROWINGS = 2
"""How often the gap between a size that is fast enough and one that is not is halved, at first a factor of 2: what is
left, 2 ** (1 / 4), is less than 20% of bytes."""


def keeping(options: list[Option]) -> list[Option]:
    """Return those that keep all limits."""
    return [option for option in options if not option.why]


def within(most: int, tried: Tried, wanted: Wanted) -> list[Option]:
    """Return what was tried of `most` bytes and, as long as only smaller ones could be fast enough, of fewer.

    Raises: BudgetTooSmall where no form fits in `most`.
    """
    found = tried(most)
    return found + below(found, most, tried, wanted)


def below(latest: list[Option], most: int, tried: Tried, wanted: Wanted) -> list[Option]:
    """Return what was tried of less than `most` bytes, where `latest`, all that are of `most`, asks for it.

    Sizes are halved until a form keeps all limits, nothing is too slow, or the smallest artifact was tried; then the
    gap to the last one that was too slow is narrowed, since larger artifacts lose less.
    """
    found: list[Option] = []
    size = slow = most
    while not keeping(latest) and any(option.too_slow(wanted) for option in latest):
        step = _fitting(tried, size // 2, size)
        if step is None:
            return found
        slow, (size, latest) = size, step
        found += latest
    for _ in range(_NARROWINGS if size < slow and keeping(latest) else 0):
        step = _fitting(tried, isqrt(size * slow), slow)
        if step is None:
            break
        found += step[1]
        size, slow = (step[0], slow) if keeping(step[1]) else (size, step[0])
    return found


def _fitting(tried: Tried, size: int, end: int) -> tuple[int, list[Option]] | None:
    """Return the first size from `size` on that something fits in, and its forms; None where it is not below `end`."""
    while 0 < size < end:
        try:
            return size, tried(size)
        except BudgetTooSmall as error:
            size = error.needed
    return None
