"""Files that say nothing of a column, and files that disagree about one."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_kd.data.checks import vectors_of
from recsys_kd.data.drift import SchemaDrift, as_wanted
from recsys_kd.data.encode import encode
from recsys_kd.data.layout import WrongColumnType
from recsys_kd.data.log import open_log
from recsys_kd.flow.ab_columns import names_in
from tests.data.test_read import SPLIT, config, log, write

FIELDS = [
    {"name": "device", "side": "request", "kind": "categorical"},
    {"name": "shelf", "side": "candidate", "kind": "categorical"},
    {"name": "basket", "side": "request", "kind": "dense", "missing": "accept"},
    {"name": "history", "side": "request", "kind": "bag"},
]


def frame(rows, at=0):
    columns = log(rows=rows, request_id=np.arange(rows) + at)
    more = {
        "device": ["app", "web"] * (rows // 2),
        "shelf": [3, 4] * (rows // 2),
        "basket": [1.5, 2.5] * (rows // 2),
        "history": [["a"], ["a", "b"]] * (rows // 2),
    }
    return pd.DataFrame({**columns, **more})


def shop(tmp_path, frames):
    (tmp_path / "log").mkdir()
    for name, one in frames.items():
        table = pa.Table.from_pandas(one, preserve_index=False)
        pq.write_table(table, tmp_path / "log" / f"{name}.parquet", write_page_checksum=True)
    return tmp_path / "log"


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("nothing", [None, np.nan])
def test_a_column_that_holds_nothing_in_one_file_is_read_as_nulls(tmp_path, order, nothing):
    full, bare = frame(400), frame(40, at=1000)
    for name in ("device", "shelf", "basket"):
        bare[name] = pd.Series([nothing] * 40, dtype=object if nothing is None else float)
    bare["history"] = [[]] * 40
    path = shop(tmp_path, dict(zip(order, (full, bare), strict=True)))
    data = encode(config(path, fields=FIELDS), SPLIT, tmp_path / "out")
    assert (data.counts.used, data.counts.bad) == (440, 0)
    rows = data.batch(slice(0, 440))
    assert [data.schema.rows(data.schema.field(n)) for n in ("device", "shelf", "history")] == [3, 3, 3]
    assert all((rows.ids[n] == 2).sum() == 40 for n in ("device", "shelf"))
    assert (np.diff(rows.bags["history"].offsets) == 0).sum() == 40 and len(rows.bags["history"].values) == 600
    assert (rows.dense["basket"] == 0).sum() == 40


@pytest.mark.parametrize("nothing", [None, np.nan])
def test_rows_without_any_user_are_quarantined_and_keep_the_columns_type(tmp_path, nothing):
    bare = frame(40, at=1000)
    bare["user_id"] = nothing
    path = shop(tmp_path, {"a": bare, "b": frame(400).assign(user_id=[f"u{i % 9}" for i in range(400)])})
    data = encode(config(path, fields=FIELDS, max_quarantine=0.2), SPLIT, tmp_path / "out")
    assert dict(data.counts.quarantined) == {"null_key": 40} and data.counts.used == 400
    assert pq.read_table(data.quarantine)["user_id"].type == pa.large_string()


def test_a_file_without_rows_is_counted_and_its_types_are_not_asked(tmp_path):
    empty = pd.DataFrame(columns=frame(2).columns)
    path = shop(tmp_path, {"a": empty, "b": frame(400), "c": pd.DataFrame()})
    data = encode(config(path, fields=FIELDS), SPLIT, tmp_path / "out")
    assert (data.counts.files, data.counts.empty_files, data.counts.used) == (3, 2, 400)
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["counts"]["empty_files"] == 2
    assert "user_id" in names_in(shop(tmp_path / "out", {"a": pd.DataFrame(), "b": frame(2)}))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([f"u{i}" for i in range(40)], r"b\.parquet: column 'user_id' is string, in .*a\.parquet it is int64"),
        ([None, *range(39)], r"b\.parquet: .*double, in .*a\.parquet it is int64.*`Int64`"),
    ],
)
def test_files_that_disagree_are_both_named(tmp_path, ids, words):
    path = shop(tmp_path, {"0": frame(0), "a": frame(400), "b": frame(40).assign(user_id=ids)})
    with pytest.raises(SchemaDrift, match=words):
        open_log(config(path), SPLIT)


def test_a_column_that_holds_nothing_anywhere_is_no_field(tmp_path):
    path = shop(tmp_path, {"a": frame(40).assign(device=None), "b": frame(40).assign(device=None)})
    with pytest.raises(WrongColumnType, match=r"data\.fields\[\d\]: column 'device' is null; .*null in every row"):
        open_log(config(path, fields=FIELDS), SPLIT)


def test_a_file_replaced_after_it_was_looked_at_is_not_read_as_nulls(tmp_path):
    with pytest.raises(SchemaDrift, match=r"a\.parquet: column 'c' is double now"):
        as_wanted(pa.array([1.0, None]), pa.string(), tmp_path / "a.parquet", "c")


def test_lists_without_values_keep_their_lengths(tmp_path):
    found = as_wanted(pa.array([[], None, [None, None]], pa.list_(pa.null())), pa.list_(pa.float32(), 2), tmp_path, "c")
    values, missing, wrong = vectors_of(found, 2)
    assert missing.tolist() == [False, True, True] and wrong.tolist() == [True, False, False]
    assert values.shape == (3, 2)


def test_a_damaged_file_is_left_to_the_scan(tmp_path):
    path = shop(tmp_path, {"a": frame(400), "b": frame(400, at=1000).assign(device=np.nan)})
    raw = bytearray((path / "b.parquet").read_bytes())
    meta = pq.ParquetFile(path / "b.parquet").metadata.row_group(0)
    column = next(meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == "device")
    raw[column.data_page_offset + column.total_compressed_size - 1] ^= 255
    (path / "b.parquet").write_bytes(raw)
    data = encode(config(path, fields=FIELDS, on_bad_file="exclude"), SPLIT, tmp_path / "out")
    assert data.counts.excluded_files == [str(path / "b.parquet")] and data.counts.used == 400


def test_dictionaries_of_nothing_agree_with_texts(tmp_path):
    (tmp_path / "log").mkdir()
    columns = log(device=pa.array(["app"] * 400).dictionary_encode())
    write(tmp_path / "log" / "a.parquet", columns)
    nothing = pa.DictionaryArray.from_arrays(pa.array([None] * 400, pa.int32()), pa.nulls(0))
    write(tmp_path / "log" / "b.parquet", {**columns, "device": nothing, "request_id": np.arange(400) + 1000})
    data = encode(config(tmp_path / "log", fields=FIELDS[:1]), SPLIT, tmp_path / "out")
    assert data.counts.used == 800 and len(data.keys("device")) == 1
