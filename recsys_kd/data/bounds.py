"""How many distinct values the columns of some files can hold at most, from footers and dictionaries' headers alone.

Three bounds, of which the least holds: as many as there are values; as many as lie between the least and the greatest
integer; as many as all row groups' dictionaries hold together, where every data page is coded by one.
Source: parquet-format's parquet.thrift.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from recsys_kd.data.files import partition_values
from recsys_kd.data.footer import PAGE_HEADER_START, BadFooter, Compact, read_footer

_GROUPS, _COLUMNS, _META = 4, 1, 3
_TYPE, _PATH, _VALUES, _DICTIONARY, _STATISTICS, _ENCODINGS = 1, 3, 5, 11, 12, 13
_NULLS, _MAX, _MIN = 3, 5, 6
_BOOLEAN, _INTEGERS = 0, (1, 2)
_DATA_PAGES, _BY_DICTIONARY = (0, 3), (2, 8)
_DICTIONARY_HEADER, _ENTRIES = 7, 1

Struct = dict[int, Any]


@dataclass
class Bound:
    """What row groups say together of one column; None where one of them does not say."""

    values: int = 0
    """Values, nulls included; of lists their elements."""
    integers: tuple[int, int] | None = None
    ranged: bool = True
    entries: int | None = 0
    largest: int = 0
    """Entries of the largest dictionary: at least so many distinct values there are; 0 where none says."""
    named: set[str | None] = field(default_factory=set)
    """Values that folders give the column."""

    def distinct(self, least: int = 1) -> int:
        """Return how many values can occur at least `least` times each, at most."""
        found = [self.values // least]
        if self.ranged and self.integers is not None:
            found.append(self.integers[1] - self.integers[0] + 1)
        if self.entries is not None:
            found.append(self.entries)
        return min(found) + len(self.named)


def bounds(files: Iterable[Path], root: Path, columns: Iterable[str]) -> dict[str, Bound]:
    """Return a bound for every column, over all `files` of a log at `root`. Raises: BadFooter."""
    found = {column: Bound() for column in columns}
    for path in files:
        named = partition_values(path, root)
        try:
            with path.open("rb") as raw:
                _add_file(found, raw, named)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise BadFooter(f"is not what parquet.thrift says ({error!r})") from None
    return found


def _add_file(found: dict[str, Bound], raw: IO[bytes], named: Mapping[str, str | None]) -> None:
    groups = _struct(Compact(read_footer(raw))).get(_GROUPS, [])
    chunks = [chunk[_META] for group in groups for chunk in group[_COLUMNS] if _META in chunk]
    inside = {_root(chunk) for chunk in chunks}
    for column, bound in found.items():
        if column not in inside and column in named:
            bound.named.add(named[column])
    for chunk in chunks:
        if _root(chunk) in found:
            _add(found[_root(chunk)], chunk, raw)


def _root(chunk: Struct) -> str:
    return str(chunk[_PATH][0].decode(errors="replace"))


def _add(bound: Bound, chunk: Struct, raw: IO[bytes]) -> None:
    values = chunk.get(_VALUES, 0)
    bound.values += values
    statistics = chunk.get(_STATISTICS, {})
    if values == 0 or statistics.get(_NULLS) == values:
        return
    _add_range(bound, chunk.get(_TYPE), statistics)
    entries = _entries(chunk, raw)
    bound.largest = max(bound.largest, entries or 0)
    if bound.entries is not None:
        bound.entries = None if entries is None or not _all_coded(chunk) else bound.entries + entries


def _add_range(bound: Bound, kind: int | None, statistics: Struct) -> None:
    if kind == _BOOLEAN:
        low, high = 0, 1
    elif kind in _INTEGERS and _MIN in statistics and _MAX in statistics:
        low, high = (int.from_bytes(statistics[key], "little", signed=True) for key in (_MIN, _MAX))
    else:
        low, high = 1, 0
    if low > high:  # no integers, no statistics, or unsigned ones beyond the signed range
        bound.ranged = False
        return
    before = bound.integers or (low, high)
    bound.integers = (min(low, before[0]), max(high, before[1]))


def _all_coded(chunk: Struct) -> bool:
    """Return whether no data page does without the dictionary."""
    pages = [page for page in chunk.get(_ENCODINGS, []) if page.get(1) in _DATA_PAGES]
    return bool(pages) and all(page.get(2) in _BY_DICTIONARY for page in pages)


def _entries(chunk: Struct, raw: IO[bytes]) -> int | None:
    """Return how many entries a column chunk's dictionary has, None where it has none."""
    if _DICTIONARY not in chunk:
        return None
    raw.seek(chunk[_DICTIONARY])
    entries: int | None = _struct(Compact(raw.read(PAGE_HEADER_START))).get(_DICTIONARY_HEADER, {}).get(_ENTRIES)
    return entries


def _struct(cursor: Compact) -> Struct:
    """Return a struct as field id -> value. Raises: BadFooter."""
    try:
        return {number: cursor.value(kind) for number, kind in cursor.fields()}
    except RecursionError:
        raise BadFooter("structs nested without end") from None
