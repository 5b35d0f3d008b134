"""How many of a log's items its catalogue knows: where it knows next to none, one of the two has other ids."""

from dataclasses import dataclass, field

import numpy as np

from recsys_kd.data.columns import rows_of
from recsys_kd.data.convert import Ints, TextKeys, keys_of, sound_text
from recsys_kd.data.counts import Counts
from recsys_kd.data.items import BadCatalogue, Catalogue
from recsys_kd.data.log import Log, file_batches

LEAST = 0.01
"""Share of the log's items in the catalogue below which nothing is known of what is sold."""


class ForeignCatalogue(BadCatalogue):
    """Next to none of the log's items are in the catalogue."""


@dataclass
class Coverage:
    """Items of a log that its catalogue has, and those that it lacks; `lacking` is sorted."""

    catalogue: Catalogue
    has: int = 0
    lacking: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def check(self, log: Log) -> None:
        """Raise ForeignCatalogue where it has next to none of a log's items; the log is read for an example."""
        items = self.has + len(self.lacking)
        if self.has >= LEAST * items:
            return
        raise ForeignCatalogue(
            f"data.catalogue: {log.config.catalogue} has {self.has:,} of the {items:,} items of the log: "
            f"'{log.config.columns.item_id}' is such as {_example(log, self.lacking)} in the log and "
            f"{self.catalogue.example} in the catalogue; write it with the ids of the log, or leave data.catalogue out"
        )

    def lines(self) -> list[str]:
        """Return in words that some items are not in the catalogue, nothing where all are."""
        missing, items = len(self.lacking), self.has + len(self.lacking)
        if not missing:
            return []
        return [
            f"data.catalogue: {missing:,} of {items:,} items of the log ({missing / items:.1%}) are not in it: they "
            "are known by their id and what the log says of them"
        ]


def coverage(catalogue: Catalogue, items: Ints) -> Coverage:
    """Return which of a log's `items`, each once and sorted, are in a catalogue."""
    found = rows_of(items, catalogue.keys) < len(catalogue.keys)
    return Coverage(catalogue, int(found.sum()), items[~found])


@dataclass
class Met:
    """Items of a log, batch by batch, in memory that grows with those the catalogue lacks."""

    catalogue: Catalogue

    def __post_init__(self) -> None:
        self.seen = np.zeros(len(self.catalogue.keys), dtype=bool)
        self.lacking: set[int] = set()

    def add(self, items: Ints) -> None:
        """Take in the items of some rows."""
        items = np.unique(items)
        at = rows_of(items, self.catalogue.keys)
        known = at < len(self.seen)
        self.seen[at[known]] = True
        self.lacking.update(items[~known].tolist())

    def found(self) -> Coverage:
        """Return what all of them come to."""
        return Coverage(self.catalogue, int(self.seen.sum()), np.array(sorted(self.lacking), dtype=np.int64))


def _example(log: Log, lacking: Ints) -> str:
    """Return an item of the log that its catalogue lacks, as a message shows it."""
    column = log.config.columns.item_id
    for path in log.files:
        for batch in file_batches(log, path, Counts()):  # a damaged file may be one to leave out
            array = sound_text(batch.column(column))[0]
            at = np.flatnonzero(np.isin(keys_of(array, TextKeys()).values, lacking) & ~np.asarray(array.is_null()))
            if len(at):
                return repr(array[int(at[0])].as_py())
    return "?"
