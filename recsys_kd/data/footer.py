"""Footers and page headers of Parquet files, read without Arrow; here, whether pages have checksums.

pyarrow 26 ends the whole process (`std::terminate`, not an exception) where `RowGroupMetaData.column` meets a footer
with a flipped byte in its size statistics, so that accessor is never called on a file not yet known to be sound.
Source: parquet-format's parquet.thrift, Thrift's compact protocol.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTS = (4, 5, 6)
_ROW_GROUPS, _COLUMNS, _META = 4, 1, 3
_DATA_PAGE, _DICTIONARY_PAGE = 9, 11
_CRC = 4
PAGE_HEADER_START = 64
"""Bytes that hold a page header's first four fields: each at most 1 + 5 bytes."""


class BadFooter(ValueError):
    """The bytes are not what parquet.thrift says."""


class Compact:
    """A cursor over Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        """Return the next byte."""
        if self.at >= len(self.data):
            raise BadFooter("ends in the middle of a value")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        """Return the next unsigned number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise BadFooter("a number of more than 64 bits")

    def zigzag(self) -> int:
        """Return the next signed number."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield (field id, type) of a struct; whoever iterates reads or skips each value."""
        field = 0
        while True:
            head = self.byte()
            if head & 15 == _STOP:
                return
            field = field + (head >> 4) if head >> 4 else self.zigzag()
            yield field, head & 15

    def items(self) -> tuple[int, int]:
        """Return the length and element type of a list."""
        head = self.byte()
        return (self.varint() if head >> 4 == 15 else head >> 4), head & 15

    def skip(self, kind: int) -> None:
        """Pass over a value of a struct's field."""
        if kind in _INTS:
            self.varint()
        elif kind in (_BYTE, _DOUBLE):
            self.at += 1 if kind == _BYTE else 8
        elif kind == _BINARY:
            length = self.varint()
            self.at += length
        elif kind in (_LIST, _SET):
            size, element = self.items()
            for _ in range(size):
                self.skip(_BYTE if element in (_TRUE, _FALSE) else element)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner)
        elif kind not in (_TRUE, _FALSE):
            raise BadFooter(f"type {kind}, which parquet.thrift does not use")
        if self.at > len(self.data):
            raise BadFooter("ends in the middle of a value")

    def value(self, kind: int) -> object:
        """Return a value of a struct's field or a list: int, bytes, bool, list, or a struct as a dict by field id."""
        if kind in _INTS:
            return self.zigzag()
        if kind == _BINARY:
            length = self.varint()
            self.at += length
            if self.at > len(self.data):
                raise BadFooter("ends in the middle of a value")
            return self.data[self.at - length : self.at]
        if kind in (_LIST, _SET):
            size, element = self.items()
            return [self.value(_BYTE if element in (_TRUE, _FALSE) else element) for _ in range(size)]
        if kind == _STRUCT:
            return {field: self.value(inner) for field, inner in self.fields()}
        self.skip(kind)
        return kind == _TRUE

    def find(self, wanted: int) -> bool:
        """Move to the value of a struct's field; False if the struct ends without it."""
        for field, kind in self.fields():
            if field == wanted:
                return True
            self.skip(kind)
        return False


def first_pages(footer: bytes) -> list[int]:
    """Return where the first page of every column of the first row group starts. Raises: BadFooter."""
    cursor = Compact(footer)
    try:
        if not cursor.find(_ROW_GROUPS):
            raise BadFooter("has no list of row groups")
        if cursor.items()[0] == 0:
            return []
        if not cursor.find(_COLUMNS):
            raise BadFooter("has a row group without columns")
        return [_first_page(cursor) for _ in range(cursor.items()[0])]
    except RecursionError:
        raise BadFooter("structs nested without end") from None


def _first_page(cursor: Compact) -> int:
    """Read one ColumnChunk and return the lesser of its dictionary's and its first data page's offset."""
    starts: list[int] = []
    for field, kind in cursor.fields():
        if field != _META or kind != _STRUCT:
            cursor.skip(kind)
            continue
        for inner, inner_kind in cursor.fields():
            if inner in (_DATA_PAGE, _DICTIONARY_PAGE) and inner_kind in _INTS:
                starts.append(cursor.zigzag())
            else:
                cursor.skip(inner_kind)
    # Some writers store 0 for "no dictionary"; a page never starts before the file's 4 magic bytes.
    real = [start for start in starts if start >= 4]
    if not real:
        raise BadFooter("a column without pages")
    return min(real)


def page_has_crc(header: bytes) -> bool:
    """Return whether a page header, given by its first bytes, carries field 4, `crc`."""
    cursor = Compact(header)
    for field, kind in cursor.fields():
        if field >= _CRC or kind not in _INTS:
            return field == _CRC and kind in _INTS
        cursor.skip(kind)
    return False


def read_footer(raw: IO[bytes]) -> bytes:
    """Return an open file's footer. Raises: BadFooter."""
    size = raw.seek(0, 2)
    raw.seek(max(0, size - 8))
    length = int.from_bytes(raw.read(4), "little")
    if length > size - 12:
        raise BadFooter(f"says that it is {length} bytes long, in a file of {size}")
    raw.seek(size - 8 - length)
    return raw.read(length)


def all_pages_have_crc(path: Path) -> bool:
    """Return whether the first page of every column of the first row group carries a CRC. Raises: BadFooter."""
    with path.open("rb") as raw:
        footer, size = read_footer(raw), raw.seek(0, 2)
        for start in first_pages(footer):
            if start >= size:
                raise BadFooter(f"places a column at byte {start} of {size}")
            raw.seek(start)
            if not page_has_crc(raw.read(PAGE_HEADER_START)):
                return False
    return True
