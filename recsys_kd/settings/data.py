"""`data` and `split`: where the logs are, what their columns mean, which rows test."""

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from recsys_kd.settings.base import Name, StrictConfig

SMALLEST_PROPENSITY = 1e-8
"""What a policy that draws evenly from a hundred million items shows one with; smaller is 0, or a mistake."""


class Columns(StrictConfig):
    """Names of the canonical columns in the log; optional ones are absent unless named."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    label: str = "label"
    request_id: str | None = None
    """One list of candidates shown together; without it, a user's rows at one timestamp are a request."""
    position: str | None = None
    propensity: str | None = None
    weight: str | None = None
    """Sample weight, finite and not negative; 1 where absent."""


class FieldConfig(StrictConfig):
    """One more input column."""

    name: Name
    side: Literal["request", "item", "candidate"]
    kind: Literal["categorical", "bag", "dense", "vector"]
    column: str | None = None
    """Column in the log (or catalogue); the field's name where absent."""
    vocabulary: str | None = None
    """Share rows with this vocabulary, e.g. `item_id` for a history of items; the field's own where absent."""
    dim: int = Field(1, ge=1, le=4096)
    """Length of a vector field."""
    max_length: int = Field(50, ge=1, le=1000)
    """A bag keeps this many of its last values."""
    missing: Literal["quarantine", "accept"] = "quarantine"
    """A null dense or vector value quarantines its row (in a catalogue it counts against `max_quarantine`), or is taken
    as the mean, or zeros for a vector. A vector of another length is never accepted. Null categories are "unknown"."""

    @model_validator(mode="after")
    def _consistent(self) -> "FieldConfig":
        if self.kind in ("dense", "vector") and self.vocabulary is not None:
            raise ValueError(f"field '{self.name}' is {self.kind} and has no vocabulary; remove `vocabulary`")
        if self.kind == "vector" and self.dim < 2:
            raise ValueError(f"field '{self.name}' is a vector; give its length as `dim`")
        if self.kind == "bag" and self.side == "candidate":
            raise ValueError(f"field '{self.name}' is a bag on the candidate side; make its side `request` or `item`")
        return self


def milliseconds(text: str) -> int:
    """Return milliseconds UTC of an ISO 8601 text; one without a zone is UTC. Raises: ValueError."""
    stamp = dt.datetime.fromisoformat(text)
    aware = stamp if stamp.tzinfo else stamp.replace(tzinfo=dt.UTC)
    return (aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)


def utc(stamp: int) -> str:
    """Return milliseconds UTC as ISO 8601 text, to the second: what `milliseconds` reads."""
    return dt.datetime.fromtimestamp(stamp / 1000, dt.UTC).isoformat(timespec="seconds")


def _instant(value: object) -> object:
    """Return a date as text, and a text as it is if it is a date. Raises: ValueError."""
    if isinstance(value, dt.date):  # a datetime is one too
        return value.isoformat()
    try:
        if value is not None:
            milliseconds(str(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a date; write it as 2026-01-31 or 2026-01-31T12:00") from None
    return value if value is None else str(value)


Instant = Annotated[str | None, BeforeValidator(_instant)]


class Window(StrictConfig):
    """Timestamps outside are quarantined; ISO 8601 in UTC, start included, end not."""

    start: Instant = None
    end: Instant = None

    @model_validator(mode="after")
    def _in_order(self) -> "Window":
        if self.start and self.end and milliseconds(self.start) >= milliseconds(self.end):
            raise ValueError(f"`start` {self.start} is not before `end` {self.end}; every row would be outside")
        return self


class DataConfig(StrictConfig):
    """Where the logs are and what their columns mean."""

    path: Path
    """A Parquet file, a folder of them, or a folder hive-partitioned by day."""
    catalogue: Path | None = None
    """Parquet table with one row per item: the item-side fields."""
    columns: Columns = Columns()
    fields: tuple[FieldConfig, ...] = ()
    timestamp_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Unit of an integer timestamp column; timestamp-typed columns carry their own."""
    window: Window = Window()
    label_max: float = Field(1.0, gt=0)
    """Labels lie in [0, label_max]; training and metrics use label / label_max."""
    min_count: int = Field(2, ge=1)
    """Ids rarer than this in the training days share the fallback row."""
    max_quarantine: float = Field(0.001, ge=0, le=1)
    """The run stops above this quarantined fraction of the rows read, or of a catalogue's items."""
    max_duplicates: float = Field(0.5, ge=0, le=1)
    """The run stops at this fraction of rows that repeat an earlier one (user, item, time, request): at half of them, a
    log that is there twice."""
    require_checksums: bool = False
    """Refuse Parquet files without page checksums (flipped bytes in such files can't be seen)."""
    on_bad_file: Literal["stop", "exclude"] = "stop"
    """A file that can't be read whole stops the run, or is excluded and counted."""

    @model_validator(mode="after")
    def _unique_names(self) -> "DataConfig":
        names = [f.name for f in self.fields]
        reserved = {"user_id", "item_id", "timestamp", "label", "request_id", "position", "propensity", "weight"}
        for name in names:
            if names.count(name) > 1 or name in reserved:
                raise ValueError(f"field name '{name}' is used twice or reserved; choose another")
        return self


class SplitConfig(StrictConfig):
    """Time split: the last rows are the test set, those before them validation, the rest training."""

    validation_days: float = Field(1.0, gt=0)
    test_days: float = Field(1.0, gt=0)
    column: str | None = None
    """Instead of days: a log column holding `train`, `validation` or `test`."""
