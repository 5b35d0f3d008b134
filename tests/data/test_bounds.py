"""Bounds on distinct values hold whatever the writer did, and cost no row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.data.bounds import bounds
from recsys_kd.data.footer import BadFooter

TABLE = pa.table(
    {
        "id": np.arange(300) % 40 - 7,
        "name": [f"n{i % 5}" for i in range(300)],
        "bag": [[f"t{i % 3}"] * (i % 4) for i in range(300)],
        "flag": [i % 2 == 0 for i in range(300)],
        "price": np.arange(300) / 7,
        "none": pa.nulls(300, pa.string()),
    }
)


def at_most(path, column, least=1):
    return bounds([path], path.parent, [column])[column].distinct(least)


def test_bounds_worked_out_by_hand(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, row_group_size=100)
    assert at_most(path, "id") == 40  # -7 .. 32
    assert at_most(path, "name") == 15  # five texts in each of three row groups
    assert at_most(path, "bag") == 9
    assert at_most(path, "flag") == 2
    assert at_most(path, "none") == 0
    assert at_most(path, "id", least=20) == 15  # 300 values
    pq.write_table(TABLE, path, use_dictionary=False, write_statistics=False)
    assert [at_most(path, name) for name in ("id", "name", "flag")] == [300, 300, 2]


def test_a_dictionary_that_was_given_up_is_no_bound(tmp_path):
    path = tmp_path / "a.parquet"
    names = pa.table({"name": [f"a long name to fill the dictionary {i}" for i in range(5000)]})
    pq.write_table(names, path, dictionary_pagesize_limit=20_000, data_page_size=10_000, write_batch_size=100)
    assert at_most(path, "name") == 5000


def test_values_that_folders_give_are_counted(tmp_path):
    for land in ("se", "dk"):
        (tmp_path / f"land={land}").mkdir()
        pq.write_table(TABLE, tmp_path / f"land={land}" / "a.parquet")
    assert bounds(tmp_path.rglob("*.parquet"), tmp_path, ["land"])["land"].distinct(5) == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1)), max_size=60),
    st.booleans(),
    st.integers(1, 30),
)
def test_no_column_holds_more_than_its_bound(tmp_path_factory, values, dictionary, group):
    path = tmp_path_factory.mktemp("bound") / "a.parquet"
    names = [None if v is None else str(v) for v in values]
    table = pa.table({"id": pa.array(values, pa.int64()), "name": pa.array(names, pa.string())})
    pq.write_table(table, path, use_dictionary=dictionary, row_group_size=group)
    for name in ("id", "name"):
        assert at_most(path, name) >= len(set(table[name].drop_null().to_pylist()))


def test_a_damaged_footer_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path)
    clean = path.read_bytes()
    start = len(clean) - 8 - int.from_bytes(clean[-8:-4], "little")
    for at in range(start, len(clean) - 8, 7):
        path.write_bytes(clean[:at] + bytes([clean[at] ^ 0x5A]) + clean[at + 1 :])
        try:
            at_most(path, "name")
        except BadFooter:
            continue
    path.write_bytes(clean[:start] + b"\x19" + clean[-8:])
    with pytest.raises(BadFooter):
        at_most(path, "name")
