"""Which ids get a row of their own: those that the training rows hold often enough; the others share the fallback row.

A model that knows no item can't rank, so that is refused. One that knows no user can: a shop of guests whose ids never
come back has one, made of items, requests and histories.
"""

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.items import NULL_KEY
from recsys_kd.errors import InputError

Ints = NDArray[np.int64]


class EmptyVocabulary(InputError):
    """No item occurs often enough to be known."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}, so the model would know none; choose a smaller data.min_count, or a longer log")


def frequent(known: Ints, counts: Ints, least: int) -> Ints:
    """Return the distinct ids [n], sorted, that occur at least `least` times; a missing one is no id."""
    kept: Ints = known[(counts >= least) & (known != NULL_KEY)]
    return kept


def too_rare(what: str, counts: Ints, least: int) -> str:
    """Return why no id of a kind is frequent enough."""
    return (
        f"data.min_count: {least:,}: none of the {len(counts):,} {what} in the training rows occurs that often "
        f"(the most frequent: {int(counts.max()):,} times)"
    )
