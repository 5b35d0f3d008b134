"""What became of every row: read = used + quarantined + deduplicated, exactly."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from recsys_kd.errors import InputError, RecsysKdError


class RowsUnaccounted(RecsysKdError):
    """Rows read differ from used + quarantined + deduplicated: a defect of this package, not of the log."""

    exit_code = 3


class TooManyBadRows(InputError):
    """More rows are bad than the recipe allows."""


class NothingUsable(InputError):
    """No row is good."""


@dataclass
class Counts:
    """Row counts of one reading of a log."""

    read: int = 0
    used: int = 0
    deduplicated: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    worst: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Quarantined rows per (file, log column, reason)."""
    files: int = 0
    empty_files: int = 0
    files_without_checksums: int = 0
    excluded_files: list[str] = field(default_factory=list)
    bad_items: dict[str, int] = field(default_factory=dict)
    """Catalogue items without a usable value, per field; they get the mean, or zeros for a vector."""

    missing_items: int = 0
    """Items of the log that the catalogue does not have: known by their id and what the log says of them."""

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

    def check_threshold(self, limit: float, quarantine: str) -> None:
        """Raise TooManyBadRows if more than `limit` of the rows read are bad."""
        if self.bad > limit * self.read:
            (file, column, reason), rows = self.worst.most_common(1)[0]
            reasons = ", ".join(f"{name} {count:,}" for name, count in self.quarantined.most_common())
            raise TooManyBadRows(
                f"{self.bad:,} of {self.read:,} rows ({self.bad / self.read:.2%}) are bad ({reasons}), more than "
                f"data.max_quarantine {limit:.2%}; worst: {file}, column '{column}', {reason}, {rows:,} rows. "
                f"Look at {quarantine}, mend the log, or raise data.max_quarantine"
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
            "items of the log are not in the catalogue": self.missing_items,
            "file(s) hold no rows": self.empty_files,
            "file(s) can't be read whole and are excluded": len(self.excluded_files),
            "file(s) have no page checksums: flipped bytes would go unseen": self.files_without_checksums,
        }
        return lines + [f"{n:,} {what}" for what, n in counted.items() if n]

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
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Counts":
        """Rebuild from `to_json`."""
        return Counts(**{**data, "quarantined": Counter(data["quarantined"])})
