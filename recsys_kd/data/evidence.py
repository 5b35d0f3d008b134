"""What each split of a log holds to learn from and to judge by: rows, outcomes, users, and the days they lie in.

Two ways to it: of an encoded log, exactly; of raw files, by one pass over the columns that make an event, before
duplicates are known and before other columns' bad rows.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.data.checks import Canonical, RowChecker
from recsys_kd.data.counts import Counts, NothingUsable
from recsys_kd.data.coverage import Met
from recsys_kd.data.dataset import SPLITS, Dataset
from recsys_kd.data.items import Catalogue
from recsys_kd.data.layout import Layout, column_of
from recsys_kd.data.log import Log, file_batches
from recsys_kd.data.read import count_bad
from recsys_kd.data.split import Part, split_rank, split_times
from recsys_kd.data.watched import Watched, watched_of
from recsys_kd.errors import InputError
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import SplitConfig

_NEEDED = ("user_id", "item_id", "timestamp", "label", "request_id", "weight", "split")
_SPOKEN = {"train": "training", "validation": "validation", "test": "test"}
_NEVER = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)


class ConstantLabel(InputError):
    """Every label of a split is the same: there is nothing to learn, or to judge by."""


class NothingWeighs(InputError):
    """Every row of a split has weight 0: it counts in nothing."""


@dataclass
class Evidence:
    """Of one split. positives: rows of weight above 0 whose label is above half of `label_max`.

    weightless: rows of weight 0, which count in nothing that is fitted, chosen or decided. lowest, highest: labels of
    the other rows, as shares of `label_max`. soft: labels strictly between 0 and `label_max`.
    users: 0 where they are not counted, as those of training rows, of which there may be too many to hold.
    first, last: ms UTC.
    """

    rows: int = 0
    weightless: int = 0
    positives: int = 0
    soft: int = 0
    users: int = 0
    first: int = _NEVER[0]
    last: int = _NEVER[1]
    lowest: float = np.inf
    highest: float = -np.inf

    @property
    def negatives(self) -> int:
        """Rows of weight above 0 that are not positive."""
        return self.rows - self.weightless - self.positives

    @property
    def rarer(self) -> int:
        """Rows of the rarer outcome: what intervals shrink by."""
        return min(self.positives, self.negatives)

    @property
    def days(self) -> str:
        """The days that the rows lie in, as a message says them."""
        first, last = (dt.datetime.fromtimestamp(t / 1000, dt.UTC).date().isoformat() for t in (self.first, self.last))
        return first if first == last else f"{first} to {last}"

    def line(self) -> str:
        """Return the counts in words."""
        users = f", {self.users:,} users" if self.users else ""
        weights = f" of weight above 0 ({self.weightless:,} rows have weight 0)" if self.weightless else ""
        return f"{self.rows:,} rows of {self.days}, {self.positives:,} positive{weights}{users}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values; users are None where nobody counted them."""
        counts = {"rows": self.rows, "weightless": self.weightless, "positives": self.positives}
        return {**counts, "users": self.users or None, "days": self.days}

    def add(
        self, stamp: NDArray[np.generic], label: NDArray[np.generic], weight: NDArray[np.generic] | None = None
    ) -> None:
        """Count some rows [N], but for their users; weight: 1 where absent."""
        if len(label) == 0:
            return
        self.rows += len(label)
        shares = np.asarray(label)
        self.soft += int(np.count_nonzero((shares > 0) & (shares < 1)))
        self.first, self.last = min(self.first, int(stamp.min())), max(self.last, int(stamp.max()))
        counted = shares if weight is None else shares[np.asarray(weight) > 0]
        self.weightless += len(shares) - len(counted)
        self.positives += int(np.count_nonzero(counted > 0.5))
        self.lowest = float(counted.min(initial=self.lowest))
        self.highest = float(counted.max(initial=self.highest))

    def check_varies(self, name: str, stray: str = "") -> None:
        """Raise ConstantLabel where a split's labels are all the same, NothingWeighs where no row counts.

        name: the split's; stray: what there is to say of rows far behind all others.
        """
        if self.rows == 0 or self.lowest < self.highest:
            return
        if self.weightless == self.rows:
            raise NothingWeighs(
                f"data.columns.weight: all {self.rows:,} {_SPOKEN[name]} rows ({self.days}) have weight 0 and count "
                "in nothing; name a column in which rows that are to count have a weight above 0, or leave it out"
            )
        advice = (
            "name a column that holds both outcomes (positives only: see `recsys-kd import`)"
            if name == "train"
            else f"they lie in {self.days}: {stray or 'choose `split` so that every part holds both outcomes'}"
        )
        counted = f"{self.rows - self.weightless:,} {_SPOKEN[name]} rows"
        if self.weightless:
            counted += f" of weight above 0 (data.columns.weight; {self.weightless:,} more have weight 0)"
        raise ConstantLabel(f"data.columns.label: all {counted} have label {self.lowest:g}; {advice}")


def of_dataset(dataset: Dataset) -> dict[str, Evidence]:
    """Return what every split of an encoded log holds; users of the training rows are not counted."""
    found = {}
    for name, part in dataset.splits.items():
        cut = slice(part.start, part.stop)
        found[name] = Evidence()
        found[name].add(*(dataset.column(column)[cut] for column in ("timestamp", "label", "weight")))
        if name != "train":
            found[name].users = len(np.unique(dataset.column("user")[cut]))
    return found


def parts_of(splits: Mapping[str, Evidence]) -> dict[str, Part]:
    """Return rows and times of the splits that hold some."""
    return {name: Part(found.rows, found.first, found.last) for name, found in splits.items() if found.rows}


@dataclass
class _Tally:
    """Counts of one pass. last: when the log's last row is thought to be, ms UTC; None: only that is sought."""

    split: SplitConfig
    last: int | None
    met: Met | None
    """Items, where there is a catalogue that may lack some."""
    seen: int = _NEVER[1]
    mixed: int = 0
    """Rows that follow one of the same request and of another user."""
    parts: dict[str, Evidence] = field(default_factory=lambda: {name: Evidence() for name in SPLITS})
    users: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in SPLITS[1:]})

    def add(self, batch: pa.RecordBatch, rows: Canonical) -> None:
        good = np.ones(len(rows.user), dtype=bool) if rows.reason is None else rows.reason == 0
        stamp = rows.timestamp[good]
        self.seen = max(self.seen, int(stamp.max(initial=_NEVER[1])))
        if self.met is not None:
            self.met.add(rows.item[good])
        if rows.request is not None:
            request, user = rows.request[good], rows.user[good]
            self.mixed += int(np.count_nonzero((request[1:] == request[:-1]) & (user[1:] != user[:-1])))
        rank = self._rank(batch, stamp, good)
        for number, name in enumerate(SPLITS):
            mine = rank == number
            weight = rows.numbers["weight"][good][mine] if "weight" in rows.numbers else None
            self.parts[name].add(stamp[mine], rows.label[good][mine], weight)
            if name in self.users:
                self.users[name].update(np.unique(rows.user[good][mine]).tolist())

    def _rank(self, batch: pa.RecordBatch, stamp: NDArray[np.int64], good: NDArray[np.bool_]) -> NDArray[np.int64]:
        if self.split.column:
            return split_rank(batch.column(self.split.column), self.split.column)[good].astype(np.int64)
        if self.last is None:
            return np.full(len(stamp), len(SPLITS))
        return np.searchsorted(split_times(self.last, self.split), stamp, side="right")

    def found(self) -> dict[str, Evidence]:
        return {name: replace(part, users=len(self.users.get(name, ()))) for name, part in self.parts.items()}


@dataclass(frozen=True)
class Found:
    """What a pass over a log's files came to; `counts` of rows that are bad in the columns of an event.

    notes: items that the catalogue lacks, requests of several users, and item-side fields that vary within an item, a
    line each.
    """

    splits: dict[str, Evidence]
    counts: Counts
    notes: list[str]


def of_log(
    log: Log, split: SplitConfig, last: int | None, progress: Progress = SILENT, catalogue: Catalogue | None = None
) -> Found:
    """Return what every split of a log's files will hold, and what else one pass tells.

    last: when the log's last row is thought to be, ms UTC; another pass is made where it is not. Raises: BadFile,
    BadSplitValue, NothingUsable, TooManyBadRows where these columns alone have more than the recipe allows, and
    ForeignCatalogue where next to none of the items is in the catalogue, if one is given.
    """
    tally, counts, watched = _pass(log, split, last, progress, catalogue)
    if tally.seen == _NEVER[1]:
        raise NothingUsable(
            f"data.path: {log.config.path}: no row has a sound user, item, time and label; look at data.columns, "
            f"data.timestamp_unit and data.window; worst: {counts.worst_told()}"
        )
    counts.check_threshold(log.config.max_quarantine, None)
    if not split.column and tally.seen != last:
        tally, counts, watched = _pass(log, split, tally.seen, progress, catalogue)
    notes = [line for one in watched if (line := one.line()) is not None]
    return Found(tally.found(), counts, [*_covered(log, tally.met), *_mixed(tally.mixed), *notes])


def _mixed(rows: int) -> list[str]:
    told = (
        f"data.columns.request_id: {rows:,} rows follow one of the same request and of another user, and a request is "
        "one list shown to one user, by which lists are measured: is the column meant?"
    )
    return [told] if rows else []


def _covered(log: Log, met: Met | None) -> list[str]:
    if met is None:
        return []
    found = met.found()
    found.check(log)
    return found.lines()


def _pass(
    log: Log, split: SplitConfig, last: int | None, progress: Progress, catalogue: Catalogue | None
) -> tuple[_Tally, Counts, tuple[Watched, ...]]:
    watched, met = watched_of(log.layout), None if catalogue is None else Met(catalogue)
    layout = _narrow(log.layout)
    narrow = Log(log.config, _wider(layout, watched), log.files, log.rows, log.counts)
    checker, tally, counts = RowChecker(log.config, layout), _Tally(split, last, met), Counts()
    with progress.task("count labels", log.rows) as task:
        for path in log.files:
            start = 0
            for batch in file_batches(narrow, path, counts):
                rows = checker.check(batch)
                tally.add(batch, rows)
                for one in watched:
                    one.add(batch, rows, checker.text["item_id"])
                if rows.reason is not None:
                    count_bad(counts, batch, rows.reason, checker.causes, path, start)
                start += batch.num_rows
                counts.read += batch.num_rows
                task.advance(batch.num_rows)
    return tally, counts, watched


def _wider(layout: Layout, watched: tuple[Watched, ...]) -> Layout:
    """Return a layout that reads the columns of watched fields too."""
    columns = {one.config.name: column_of(one.config) for one in watched}
    return replace(
        layout, columns=layout.columns | columns, types=layout.types | {o.config.name: o.kind for o in watched}
    )


def _narrow(layout: Layout) -> Layout:
    """Return a layout of the columns that counting needs."""
    columns = {name: column for name, column in layout.columns.items() if name in _NEEDED}
    return Layout(columns, (), (), {name: layout.types[name] for name in columns})
