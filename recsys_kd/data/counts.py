"""What became of every row: read = used + quarantined + deduplicated, exactly."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from recsys_kd.errors import InputError, RecsysKdError
from recsys_kd.settings import SMALLEST_PROPENSITY


class RowsUnaccounted(RecsysKdError):
    """Rows read differ from used + quarantined + deduplicated: a defect of this package, not of the log."""

    exit_code = 3


class TooManyBadRows(InputError):
    """More rows are bad than the recipe allows."""


class TooManyDuplicates(InputError):
    """More rows repeat an earlier one than the recipe allows."""


class ContradictingDuplicates(InputError):
    """Rows of one event have different labels."""


class NothingUsable(InputError):
    """No row is good."""


TINY_PROPENSITY = "tiny_propensity"
"""Reason of rows whose propensity is 0 or so small that no policy can have drawn with it."""
LARGE = 0.05
"""Share of bad rows from which it is not a few rows that are wrong but what is said of their column."""
_CAUSES = {
    "null_key": "does the log name it otherwise (data.columns)?",
    "nan": "what writes it, or is it another column (data.columns, data.fields)?",
    "wrong_type": "is it the column meant (data.columns, data.fields)?",
    "negative_label": "is it a label (data.columns.label)?",
    "out_of_range": "is it the column meant (data.columns; labels reach to data.label_max)?",
    TINY_PROPENSITY: "is it the chance of what was shown (data.columns.propensity)?",
    "timestamp_out_of_window": "are data.timestamp_unit and data.window right?",
    "bad_vector": "is the field's `dim` right?",
}
"""What to look at where a column is bad in many rows, per reason."""

_MEND = {
    TINY_PROPENSITY: (
        f"a row weighs 1 / propensity, so one below {SMALLEST_PROPENSITY:g} would outweigh all others: log the chance "
        "that it was drawn with, or clip it at a floor that the policy kept to"
    )
}
"""How to mend the log, per reason, where more can be said than that."""
UNCHECKED_CATALOGUE = "data.catalogue has no page checksums: flipped bytes would go unseen"
_EVENT = ("user_id", "item_id", "timestamp")


def same_event(keys: Sequence[str]) -> str:
    """Return in words what counts as a duplicate and what becomes of it; keys: log columns that identify an event."""
    return f"rows alike in {', '.join(keys[:-1])} and {keys[-1]} are one event, of which the first read is kept"


def excluded_told(files: Sequence[str], most: int = 5) -> str:
    """Return in words which files are left out, the first of them by name."""
    more = f" and {len(files) - most:,} more" if len(files) > most else ""
    return f"{len(files):,} file(s) can't be read whole and are excluded: {', '.join(files[:most])}{more}"


@dataclass(frozen=True)
class Varying:
    """A field of items whose value in the log varies within one: such items, and the rows with another than is used.

    item, other, used: the first such row's, as a message says them.
    """

    items: int
    rows: int
    item: str
    other: str
    used: str

    def line(self, name: str) -> str:
        """Return it in words."""
        return (
            f"field '{name}' is to be the item's own, yet {self.items:,} item(s) of the training days have several "
            f"values in the log: the last of those days is used, and {self.rows:,} rows say another (item {self.item}: "
            f"{self.other}, used {self.used}). If it depends on more than the item, give it `side: candidate`"
        )


@dataclass
class Counts:
    """Row counts of one reading of a log."""

    read: int = 0
    used: int = 0
    deduplicated: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    worst: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Quarantined rows per (file, log column, reason)."""
    first: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    """The first such value, as text, and its row in the file."""
    files: int = 0
    empty_files: int = 0
    files_without_checksums: int = 0
    excluded_files: list[str] = field(default_factory=list)
    bad_items: dict[str, int] = field(default_factory=dict)
    """Catalogue items without a usable value, per field; they get the mean, or zeros for a vector."""

    missing_items: int = 0
    """Items of the log that the catalogue does not have: known by their id and what the log says of them."""
    contradicting: int = 0
    """Duplicates whose label is another than that of the row that is kept."""
    differing: int = 0
    """Duplicates one of whose numbers (a score, a position, ..) is another than that of the row that is kept."""
    soft_labels: int = 0
    """Rows used whose label, as a share of data.label_max, lies strictly between 0 and 1."""
    varying: dict[str, Varying] = field(default_factory=dict)
    """Item-side fields of the log that vary within an item."""
    unchecked_catalogue: bool = False
    """The catalogue has no page checksums."""
    requests: int = 0
    disagreeing: dict[str, int] = field(default_factory=dict)
    """Requests whose rows have several users (`user`), or several values of a field of requests, by its name."""

    @property
    def bad(self) -> int:
        """Quarantined rows of all reasons."""
        return sum(self.quarantined.values())

    def check_sum(self) -> None:
        """Raise RowsUnaccounted unless every row read is accounted for."""
        if self.read != self.used + self.bad + self.deduplicated:
            raise RowsUnaccounted(f"{self.line()}: these do not add up; please report this with the recipe")

    def check_used(self, quarantine: str) -> None:
        """Raise NothingUsable if every row is bad, however many may be."""
        if self.used == 0:
            reasons = ", ".join(f"{name} {count:,}" for name, count in self.quarantined.most_common())
            raise NothingUsable(f"all {self.read:,} rows are bad ({reasons}); look at {quarantine} and mend the log")

    def check_threshold(self, limit: float, quarantine: str | None) -> None:
        """Raise TooManyBadRows if more than `limit` of the rows read are bad; quarantine: where they lie, if at all."""
        if self.bad > limit * self.read:
            reasons = ", ".join(f"{name} {count:,}" for name, count in self.quarantined.most_common())
            (_, column, reason), _ = self.worst.most_common(1)[0]
            advice = f"{_MEND.get(reason, 'mend the log')}, or raise data.max_quarantine"
            if self.bad > LARGE * self.read:
                advice = f"so many are no accident: look at column '{column}': {_CAUSES[reason]}"
            kept = f". They are in {quarantine}" if quarantine else ""
            raise TooManyBadRows(
                f"{self.bad:,} of {self.read:,} rows ({self.bad / self.read:.2%}) are bad ({reasons}), more than "
                f"data.max_quarantine {limit:.2%}; worst: {self.worst_told()}{kept}; {advice}"
            )

    def worst_told(self) -> str:
        """Return where most bad rows come from: file, column, reason, their number and the first value."""
        (file, column, reason), rows = self.worst.most_common(1)[0]
        told = f"{file}, column '{column}', {reason}, {rows:,} rows"
        value, row = self.first.get((file, column, reason), ("", -1))
        return told if row < 0 else f"{told}, the first is {value} in row {row}"

    def check_duplicates(self, limit: float, keys: Sequence[str]) -> None:
        """Raise TooManyDuplicates if `limit` of the rows read or more repeat an earlier one.

        At half of them, a log that is there twice.
        """
        if self.deduplicated and self.deduplicated >= limit * self.read:
            apart = "" if len(keys) > len(_EVENT) else " Lists shown at one time differ by data.columns.request_id."
            raise TooManyDuplicates(
                f"{self.deduplicated:,} of {self.read:,} rows ({self.deduplicated / self.read:.2%}) are duplicates, "
                f"and data.max_duplicates is {limit:.0%}: {same_event(keys)}.{apart} Is a file there twice, or an "
                "event logged at each of its steps (shown, then clicked)? Write each event once, or raise "
                "data.max_duplicates"
            )

    def check_contradictions(self, limit: float, keys: Sequence[str]) -> None:
        """Raise ContradictingDuplicates if more than `limit` of the rows read repeat an event with another label."""
        if self.contradicting > limit * self.read:
            raise ContradictingDuplicates(
                f"{self.contradicting:,} of {self.deduplicated:,} duplicates have another label than the row that is "
                f"kept, more than data.max_quarantine {limit:.2%} of the rows: {same_event(keys)}, so the order of "
                "reading would decide what was clicked. Is an event logged at each of its steps (shown, then clicked)? "
                "Write each event once, with its last label"
            )

    def check_differences(self, limit: float, keys: Sequence[str]) -> None:
        """Raise ContradictingDuplicates if more than `limit` of the rows read repeat an event with other numbers."""
        if self.differing > limit * self.read:
            raise ContradictingDuplicates(
                f"{self.differing:,} of {self.deduplicated:,} duplicates have another score, position or propensity "
                f"than the row that is kept, more than data.max_quarantine {limit:.2%} of the rows: "
                f"{same_event(keys)}, so the order of reading would decide between models. Was an event "
                "scored twice? Write each event once"
            )

    def line(self) -> str:
        """Return the sum as one line."""
        return (
            f"{self.read:,} read = {self.used:,} used + {self.bad:,} quarantined + {self.deduplicated:,} deduplicated"
        )

    def notes(self) -> list[str]:
        """Return what else there is to know, a line each: reasons, files left out, what the catalogue lacks."""
        named = {
            "quarantined": self.quarantined.most_common(),
            "catalogue items without a usable value": self.bad_items.items(),
        }
        lines = [f"{what}: {', '.join(f'{name} {n:,}' for name, n in found)}" for what, found in named.items() if found]
        counted = {
            "duplicates have another label than the row that is kept": self.contradicting,
            "duplicates have another number (a score, a position, ..) than the row that is kept": self.differing,
            "items of the log are not in the catalogue": self.missing_items,
            "file(s) hold no rows": self.empty_files,
            "file(s) have no page checksums: flipped bytes would go unseen": self.files_without_checksums,
        }
        lines += [f"{n:,} {what}" for what, n in counted.items() if n]
        lines += [UNCHECKED_CATALOGUE] if self.unchecked_catalogue else []
        lines += self.of_values()
        return lines + ([excluded_told(self.excluded_files)] if self.excluded_files else [])

    def of_values(self) -> list[str]:
        """Return what there is to know of values that were used, a line each."""
        varying = [found.line(name) for name, found in self.varying.items()]
        return [*varying, *(self._of_requests(name, found) for name, found in self.disagreeing.items())]

    def _of_requests(self, name: str, found: int) -> str:
        told = f"{found:,} of {self.requests:,} requests have several"
        if name == "user":
            return (
                f"data.columns.request_id: {told} users, and a request is one list shown to one user, by which lists "
                "are measured: is the column meant?"
            )
        return (
            f"field '{name}' is to be the request's own, yet {told} values of it, and one is given when it is served. "
            "If it depends on the item too, give it `side: candidate`; if requests are told apart by another column, "
            "name it as data.columns.request_id"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "read": self.read,
            "used": self.used,
            "deduplicated": self.deduplicated,
            "quarantined": dict(self.quarantined),
            "files": self.files,
            "empty_files": self.empty_files,
            "files_without_checksums": self.files_without_checksums,
            "excluded_files": list(self.excluded_files),
            "bad_items": dict(self.bad_items),
            "missing_items": self.missing_items,
            "contradicting": self.contradicting,
            "differing": self.differing,
            "soft_labels": self.soft_labels,
            "varying": {name: asdict(found) for name, found in self.varying.items()},
            "unchecked_catalogue": self.unchecked_catalogue,
            "requests": self.requests,
            "disagreeing": dict(self.disagreeing),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Counts":
        """Rebuild from `to_json`."""
        varying = {name: Varying(**found) for name, found in data.get("varying", {}).items()}
        return Counts(**{**data, "quarantined": Counter(data["quarantined"]), "varying": varying})
