"""Interaction tables as they are found: CSV, TSV, Parquet or libsvm, cleaned by rules that count what they drop."""

import re
from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from pydantic import model_validator

from recsys_kd.errors import InputError
from recsys_kd.settings import StrictConfig

LABEL, LIBSVM, TEXT = "label", (".libsvm", ".svm"), (".csv", ".tsv", ".txt")
"""What libsvm's first number is called here; suffixes of such files, and of tables of text."""


class UnreadableTable(InputError):
    """A source table can't be read."""


class MissingSourceColumn(InputError):
    """A rule or mapping names a column that the source does not have."""


class DropRule(StrictConfig):
    """Rows that one of the conditions holds for are dropped and counted under `reason`."""

    reason: str
    column: str
    missing: bool = False
    starts_with: str | None = None
    at_most: float | None = None
    not_matching: str | None = None
    """Regular expression that the whole text must match."""

    @model_validator(mode="after")
    def _one_condition(self) -> "DropRule":
        given = [self.missing, self.starts_with is not None, self.at_most is not None, self.not_matching is not None]
        if sum(given) != 1:
            raise ValueError(f"rule '{self.reason}': give one of missing, starts_with, at_most, not_matching")
        return self

    def mask(self, values: pd.Series) -> pd.Series:
        """Return which rows to drop."""
        if self.missing:
            return values.isna()
        if self.at_most is not None:
            return numbers_of(values) <= self.at_most
        text = values.astype("string").fillna("")
        if self.starts_with is not None:
            return text.str.startswith(self.starts_with)
        return ~text.str.fullmatch(self.not_matching or "")


def numbers_of(values: pd.Series) -> pd.Series:
    """Return numbers float64, NaN where a value is none."""
    return pd.to_numeric(values, errors="coerce").astype("float64")


@dataclass(frozen=True)
class Cleaned:
    """The rows left, and how many were read and dropped by reason."""

    rows: pd.DataFrame
    read: int
    dropped: Counter[str]


def read_libsvm(path: Path) -> pd.DataFrame:
    """Return `label` and a column `f<index>` per feature, missing where a line does not name it."""
    rows = []
    with path.open() as lines:
        for number, line in enumerate(lines, start=1):
            label, *pairs = line.split("#")[0].split() or [""]
            try:
                row = {LABEL: float(label)}
                for pair in pairs:
                    index, value = pair.split(":")
                    row[f"f{int(index)}"] = float(value)
            except ValueError:
                raise UnreadableTable(f"{path}, line {number}: '{line.strip()[:60]}' is not libsvm; mend it") from None
            rows.append(row)
    frame = pd.DataFrame(rows)
    for name in frame.columns.drop(LABEL):
        if frame[name].notna().all() and (frame[name] % 1 == 0).all():
            frame[name] = frame[name].astype("int64")
    return frame


def read_table(path: Path, ids: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return a table by its suffix: .csv, .tsv, .parquet, .libsvm or .svm. Raises: UnreadableTable.

    ids: columns of ids. In text files they are numbers only where all of them are written as numbers are: 007 is not 7.
    Integers beside gaps stay integers (pandas' own are floats, which merge ids beyond 2^53).
    """
    try:
        if path.suffix == ".parquet":
            frame: pd.DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas(
                types_mapper=_NULLABLE.get
            )
            return frame
        if path.suffix in LIBSVM:
            return read_libsvm(path)
        if path.suffix in TEXT:
            return _read_text(path, ids)
    except FileNotFoundError:
        raise UnreadableTable(f"{path}: does not exist; name a file that is there") from None
    except (OSError, pa.ArrowException) as error:
        raise UnreadableTable(f"{path}: can't be read ({str(error).splitlines()[0]}); check the file") from None
    raise UnreadableTable(f"{path}: unknown kind '{path.suffix}'; known are .csv, .tsv, .parquet and .libsvm")


_NULLABLE = {
    **{getattr(pa, f"int{bits}")(): getattr(pd, f"Int{bits}Dtype")() for bits in (8, 16, 32, 64)},
    **{getattr(pa, f"uint{bits}")(): getattr(pd, f"UInt{bits}Dtype")() for bits in (8, 16, 32, 64)},
}
WHOLE = r"-?(0|[1-9]\d{0,17})(\.0+)?"
"""A number as programs write it, or a float of one; up to 18 digits fit int64."""


def _read_text(path: Path, ids: tuple[str, ...]) -> pd.DataFrame:
    convert = pc.ConvertOptions(strings_can_be_null=True, column_types=dict.fromkeys(ids, pa.string()))
    parse = pc.ParseOptions(delimiter="," if path.suffix == ".csv" else "\t")
    try:
        table = pc.read_csv(path, parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise UnreadableTable(_place(path, parse, str(error).splitlines()[0])) from None
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get)
    for name in set(ids) & set(frame.columns):
        text = frame[name].dropna()
        if len(text) and text.str.fullmatch(WHOLE).all():
            whole = text.str.replace(r"\.0+$", "", regex=True).astype("int64")
            frame[name] = whole.astype("Int64").reindex(frame.index)
    return frame


def _place(path: Path, parse: pc.ParseOptions, why: str) -> str:
    """Return where a text table is not what it should be: its reader counts rows on one thread alone."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                shown = line[max(0, error.start - 20) : error.start + 10].decode(errors="replace").strip()
                return f"{path}, line {number}: '{shown}' is not UTF-8; save the file as UTF-8"
    try:
        pc.read_csv(path, parse_options=parse, read_options=pc.ReadOptions(use_threads=False))
    except pa.ArrowInvalid as error:
        why = str(error).splitlines()[0]
    row = re.fullmatch(r"CSV parse error: Row #(\d+): (.*)", why)
    if row is None:
        return f"{path}: can't be read ({why}); check the file"
    quotes = " (a quote that is never closed?)" if row[2].count('"') % 2 else ""
    return f"{path}, row {row[1]}, the header being the first: {row[2]}{quotes}; mend the row"


def need(frame: pd.DataFrame, column: str, key: str, where: str) -> pd.Series:
    """Return a column that the import's `key` names. Raises: MissingSourceColumn with those that `where` has."""
    if column not in frame.columns:
        held = [str(name) for name in frame.columns]
        near = get_close_matches(column, held, 1)
        perhaps = f" (perhaps '{near[0]}')" if near else ""
        raise MissingSourceColumn(
            f"{key}: no column '{column}' in {where}{perhaps}; its columns are: {', '.join(held)}; name one of these"
        )
    return frame[column]


def clean(frame: pd.DataFrame, rules: tuple[DropRule, ...], where: str) -> Cleaned:
    """Apply the rules in order; a row is counted under the first that drops it, or that can't be asked of it."""
    read, dropped = len(frame), Counter[str]()
    for at, rule in enumerate(rules):
        values = need(frame, rule.column, f"drop[{at}].column", where)
        if rule.at_most is not None:
            frame = _without_numbers(frame, rule.column, dropped)
            values = frame[rule.column]
        mask = rule.mask(values)
        dropped[rule.reason] += int(mask.sum())
        frame = frame[~mask]
    return Cleaned(frame, read, dropped)


def _without_numbers(frame: pd.DataFrame, column: str, dropped: Counter[str]) -> pd.DataFrame:
    """Leave out rows that a rule about numbers says nothing of, under reasons that name the column and a value."""
    values = frame[column]
    bad, missing = numbers_of(values).isna(), values.isna()
    wrong = bad & ~missing
    if wrong.any():
        dropped[f"'{column}' is no number, such as '{str(values[wrong].iloc[0])[:40]}'"] += int(wrong.sum())
    if missing.any():
        dropped[f"no '{column}'"] += int(missing.sum())
    return frame[~bad]


class SourceColumns(StrictConfig):
    """Names in the source table. One of `time` and `order` is needed."""

    user: str
    item: str
    time: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Unit of a numeric `time`."""
    time_format: str | None = None
    """How `time` is written where it is no ISO 8601 date, such as `%d/%m/%Y %H:%M`."""
    order: str | None = None
    """Position in the user's own history, where there is no time."""
    label: str | None = None
    """Outcome, where the table has any: rows above 0 are events, the others are dropped and counted (a table of all
    that was shown is a ranking log already, and needs a recipe, not an import)."""

    @model_validator(mode="after")
    def _time_or_order(self) -> "SourceColumns":
        if (self.time is None) == (self.order is None):
            raise ValueError("give one of `time` and `order`")
        return self
