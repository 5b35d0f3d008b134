"""Page checksums are found without Arrow, and no footer, however broken, does more than raise."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.data.files import BadFile, has_checksums
from recsys_kd.data.footer import BadFooter, all_pages_have_crc, first_pages, page_has_crc

TABLE = pa.table(
    {"id": np.arange(300), "name": [f"n{i % 5}" for i in range(300)], "bag": [[1.5] * (i % 4) for i in range(300)]}
)


def footer_of(data: bytes) -> bytes:
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


def test_a_page_header_worked_out_by_hand():
    # field 1 (type 0), 2 (size 300), 3 (size 200), 4 (crc): each head byte is delta 1, type i32.
    assert page_has_crc(bytes([0x15, 0x00, 0x15, 0xD8, 0x04, 0x15, 0x90, 0x03, 0x15, 0x02]))
    # Without a crc, field 5 (the data page's header, a struct: delta 2) follows.
    assert not page_has_crc(bytes([0x15, 0x00, 0x15, 0xD8, 0x04, 0x15, 0x90, 0x03, 0x2C, 0x00]))
    assert not page_has_crc(bytes([0x15, 0x00, 0x15, 0xD8, 0x04, 0x15, 0x90, 0x03, 0x00]))


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"compression": "none"}, {"row_group_size": 70}])
def test_first_pages_are_where_arrow_says(tmp_path, options):
    pq.write_table(TABLE, tmp_path / "a.parquet", **options)
    group = pq.read_metadata(tmp_path / "a.parquet").row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    wanted = [
        c.dictionary_page_offset if c.has_dictionary_page and c.dictionary_page_offset else c.data_page_offset
        for c in columns
    ]
    assert first_pages(footer_of((tmp_path / "a.parquet").read_bytes())) == wanted


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_checksums_are_seen_and_missed(tmp_path, version):
    pq.write_table(TABLE, tmp_path / "with.parquet", write_page_checksum=True, data_page_version=version)
    pq.write_table(TABLE, tmp_path / "without.parquet", data_page_version=version)
    assert all_pages_have_crc(tmp_path / "with.parquet")
    assert not all_pages_have_crc(tmp_path / "without.parquet")


def test_every_flipped_bit_of_a_footer_is_read_or_named(tmp_path):
    pq.write_table(TABLE, tmp_path / "a.parquet", write_page_checksum=True)
    clean = (tmp_path / "a.parquet").read_bytes()
    start, named = len(clean) - 8 - len(footer_of(clean)), 0
    for at in range(start, len(clean) - 4):
        data = bytearray(clean)
        data[at] ^= 1 << at % 8
        (tmp_path / "b.parquet").write_bytes(data)
        try:
            has_checksums(tmp_path / "b.parquet")
        except BadFile as error:
            named += "b.parquet" in str(error)
    assert named > 20


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_bad_footer(data):
    try:
        assert all(start >= 4 for start in first_pages(data))
    except BadFooter as error:
        assert "{" not in str(error)
