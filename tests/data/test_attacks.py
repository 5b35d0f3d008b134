"""Logs that would be misread without a word: each is refused, quarantined with its column, or read as it is meant."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_kd.data.convert import HashCollision, TextKeys
from recsys_kd.data.counts import TooManyBadRows
from recsys_kd.data.dedup import Deduplicator, HashSpill
from recsys_kd.data.drift import RepeatedColumn, SchemaDrift
from recsys_kd.data.encode import encode
from recsys_kd.data.files import BadFile, NoParquet, list_files, partition_values
from recsys_kd.data.items import BadCatalogue
from recsys_kd.data.layout import MissingColumn, ReservedName, WrongColumnType
from recsys_kd.errors import RecsysKdError
from recsys_kd.settings import SplitConfig
from tests.data.test_read import SPLIT, config, log, reading, write

PRICE = [{"name": "price", "side": "item", "kind": "dense"}]


def broken_text(rows: int, at: int) -> pa.Array:
    values = [b"u%d" % (i % 5) for i in range(rows)]
    values[at] = b"\xff\xfe"
    return pa.array(values, pa.binary()).view(pa.string())


def causes(path: Path) -> set[tuple[int, str, str]]:
    return {(r["row"], r["reason"], r["column"]) for r in pq.read_table(path, columns=["row", "reason", "column"])
            .to_pylist()}  # fmt: skip


def test_the_quarantine_names_the_column_and_keeps_types(tmp_path):
    columns = log()
    columns["reason"] = columns.pop("label")
    columns["reason"][3] = np.nan
    weight = np.ones(400)
    weight[5] = -2.5
    more = {"request_id": "request_id", "label": "reason", "weight": "w"}
    reading(tmp_path, {**columns, "w": weight}, columns=more, max_quarantine=0.1)
    kept = pq.read_table(tmp_path / "out" / "quarantine.parquet")
    assert causes(tmp_path / "out" / "quarantine.parquet") == {(3, "nan", "reason"), (5, "out_of_range", "w")}
    assert kept["user_id"].type == pa.int64() and kept["w"].to_pylist() == [1.0, -2.5]
    assert np.isnan(kept["log_reason"][0].as_py())


def test_a_quarantine_of_an_earlier_run_does_not_stay(tmp_path):
    columns = log()
    columns["label"][3] = np.nan
    reading(tmp_path, columns, max_quarantine=0.1)
    assert (tmp_path / "out" / "quarantine.parquet").exists()
    reading(tmp_path, log())
    assert not (tmp_path / "out" / "quarantine.parquet").exists()


def test_the_quarantine_can_lie_elsewhere_and_the_stop_names_its_column(tmp_path):
    columns = log()
    columns["label"][:9] = -1
    path = write(tmp_path / "log.parquet", columns)
    with pytest.raises(TooManyBadRows, match="column 'label', negative_label, 9 rows"):
        encode(config(path), SPLIT, tmp_path / "out", quarantine=tmp_path / "bad" / "rows.parquet")
    assert pq.read_metadata(tmp_path / "bad" / "rows.parquet").num_rows == 9


def test_one_clock_in_another_unit_does_not_take_the_test_split(tmp_path):
    columns = log()
    columns["timestamp"][5] *= 1000
    columns["timestamp"][6] = 2**62  # times 1000 this overflows
    data = reading(tmp_path, columns, max_quarantine=0.1)
    assert dict(data.counts.quarantined) == {"timestamp_out_of_window": 2}
    assert len(data.splits["test"]) > 20
    assert data.column("timestamp").max() == columns["timestamp"][[0, *range(7, 400)]].max() * 1000


def test_infinite_and_huge_float_times_are_refused(tmp_path):
    columns = log()
    stamp = columns["timestamp"].astype(float)
    stamp[[3, 4]] = [1e300, np.inf]
    data = reading(tmp_path, {**columns, "timestamp": stamp}, max_quarantine=0.1)
    assert dict(data.counts.quarantined) == {"timestamp_out_of_window": 1, "wrong_type": 1}
    assert data.column("timestamp").min() > 0


def test_epoch_seconds_written_as_text_are_not_nanoseconds(tmp_path):
    columns = log()
    truth = reading(tmp_path, columns)
    first = truth.column("timestamp")[:].copy()
    text = [str(t) for t in columns["timestamp"]]
    assert np.array_equal(reading(tmp_path, {**columns, "timestamp": text}).column("timestamp"), first)


def test_text_that_is_not_utf8_is_quarantined_wherever_it_is(tmp_path):
    device, history = broken_text(400, 4), [[b"a"], [b"\xff", b"b"]] * 200
    lists = pa.array(history[:2] + [[b"a"]] * 398, pa.list_(pa.binary())).cast(pa.list_(pa.binary()))
    lists = pa.ListArray.from_arrays(lists.offsets, lists.values.view(pa.string()))
    fields = [
        {"name": "device", "side": "request", "kind": "categorical"},
        {"name": "history", "side": "request", "kind": "bag"},
    ]
    columns = log(user_id=broken_text(400, 3), device=device, history=lists)
    data = reading(tmp_path, columns, fields=fields, max_quarantine=0.1)
    assert causes(tmp_path / "out" / "quarantine.parquet") == {
        (1, "wrong_type", "history"), (3, "wrong_type", "user_id"), (4, "wrong_type", "device"),
    }  # fmt: skip
    assert data.counts.used == 397


def test_unfinished_files_of_a_writer_are_not_part_of_the_log(tmp_path):
    for folder in ("_temporary/0", ".staging", "day=1", "_day=2"):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder / "a.parquet", log(rows=5))
    write(tmp_path / "_b.parquet", log(rows=5))
    found = [str(p.relative_to(tmp_path)) for p in list_files(tmp_path)]
    assert found == ["_day=2/a.parquet", "day=1/a.parquet"]


def test_partition_folders_are_columns(tmp_path):
    shop, n = tmp_path / "log", 0
    for part, rows in (("train", 300), ("validation", 60), ("test", 40)):
        folder = shop / f"part={part}" / f"land={'A%20B' if part == 'train' else '__HIVE_DEFAULT_PARTITION__'}"
        folder.mkdir(parents=True)
        write(folder / "a.parquet", {k: v[n : n + rows] for k, v in log().items()})
        n += rows
    fields = [{"name": "land", "side": "request", "kind": "categorical"}]
    data = encode(config(shop, fields=fields), SplitConfig(column="part"), tmp_path / "out")
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 300, "validation": 60, "test": 40}
    assert data.batch(slice(0, 400)).ids["land"].tolist() == [0] * 300 + [1] * 100
    assert partition_values(shop / "land=A%20B" / "x.parquet", shop) == {"land": "A B"}


def test_unsigned_ids_beyond_int64_do_not_meet_negative_ones(tmp_path):
    (tmp_path / "log").mkdir()
    columns = log()
    write(tmp_path / "log" / "a.parquet", {**columns, "user_id": columns["user_id"].astype(np.uint64)})
    write(tmp_path / "log" / "b.parquet", {**columns, "user_id": -columns["user_id"]})
    with pytest.raises(SchemaDrift, match=r"b\.parquet.*user_id.*int64.*uint64"):
        encode(config(tmp_path / "log"), SPLIT, tmp_path / "out")


def test_int32_and_int64_ids_of_two_files_are_the_same_ids(tmp_path):
    (tmp_path / "log").mkdir()
    columns = log()
    columns["label"][7] = np.nan
    write(tmp_path / "log" / "a.parquet", {**columns, "user_id": columns["user_id"].astype(np.int32)})
    write(tmp_path / "log" / "b.parquet", columns)
    data = encode(config(tmp_path / "log", max_quarantine=0.1), SPLIT, tmp_path / "out")
    assert (data.counts.bad, data.counts.deduplicated, data.counts.used) == (2, 399, 399)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ([{"name": "h", "side": "request", "kind": "bag", "vocabulary": "item_id"}], WrongColumnType, ["'h'", "int64"]),
        ([{"name": "user", "side": "request", "kind": "categorical", "column": "h"}], ReservedName, ["'user'", "name"]),
    ],
)
def test_fields_that_would_find_nothing_or_overwrite_are_refused(tmp_path, fields, error, words):
    with pytest.raises(error) as caught:
        reading(tmp_path, log(h=[["100"]] * 400), fields=fields)
    for word in words:
        assert word in str(caught.value)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    table = pa.table(log()).append_column("label", pa.array(np.zeros(400, np.float32)))
    pq.write_table(table, tmp_path / "log.parquet", write_page_checksum=True)
    with pytest.raises(RepeatedColumn, match=r"log\.parquet: has 2 columns called 'label'"):
        encode(config(tmp_path / "log.parquet"), SPLIT, tmp_path / "out")


@pytest.mark.parametrize(
    ("items", "error", "words"),
    [
        ({"item_id": [str(i) for i in range(100, 109)]}, WrongColumnType, ["data.catalogue", "string", "int64"]),
        ({"sku": np.arange(100, 109)}, MissingColumn, ["data.columns.item_id", "items.parquet", "sku"]),
        ({"item_id": np.array([100, *range(100, 108)])}, BadCatalogue, ["item 100", "more than one row"]),
    ],
)
def test_a_catalogue_that_can_not_be_joined_is_refused(tmp_path, items, error, words):
    path = write(tmp_path / "items.parquet", {**items, "price": np.arange(9.0)})
    with pytest.raises(error) as caught:
        reading(tmp_path, log(), catalogue=path, fields=PRICE)
    for word in words:
        assert word in str(caught.value)


def test_a_catalogue_that_is_not_there_is_a_mistake_of_the_recipe(tmp_path):
    with pytest.raises(NoParquet, match=r"^data\.catalogue: there is no file .*none\.parquet"):
        reading(tmp_path, log(), catalogue=tmp_path / "none.parquet", fields=PRICE)


def test_an_infinite_price_in_the_catalogue_is_the_mean_price(tmp_path):
    items = {"item_id": np.arange(100, 109), "price": np.array([np.inf, *range(1, 9)])}
    data = reading(
        tmp_path, log(), catalogue=write(tmp_path / "items.parquet", items), fields=PRICE, max_quarantine=0.2
    )
    price = data.item_dense("price").ravel()
    assert price[0] == 0.0 and price[1] == pytest.approx((1 - 4.5) / np.arange(1, 9).std(), abs=1e-5)


def test_a_corrupt_catalogue_is_the_catalogues_fault(tmp_path):
    path = write(tmp_path / "items.parquet", {"item_id": np.arange(100, 109), "price": np.arange(9.0)})
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)
    with pytest.raises(BadFile, match=r"items\.parquet"):
        reading(tmp_path, log(), catalogue=path, fields=PRICE)


def test_different_events_with_one_hash_are_both_kept():
    repeated = np.array([5], dtype=np.int64)
    seen = Deduplicator(repeated)
    hashes, keys = np.full(5, 5, dtype=np.int64), np.array([1, 2, 1, 2, 3], dtype=np.int64)
    assert seen.duplicates(hashes, (keys,)).tolist() == [False, False, True, True, False]
    assert seen.duplicates(hashes[:3], (keys[2:],)).tolist() == [True, True, True]
    assert seen.dropped == 5


def test_a_log_of_billions_needs_no_file_held_open_per_bucket(tmp_path):
    with HashSpill(tmp_path, 3_000_000_000) as spill:
        spill.add(np.array([7, 7, 9], dtype=np.int64))
        assert len(spill.paths) == 2048
        assert len(list(Path("/proc/self/fd").iterdir())) < 500
        repeated, extra = spill.repeated()
    assert repeated.tolist() == [7] and extra == 1


def test_two_strings_with_one_key_are_refused():
    keys = TextKeys()
    keys.cache = {"a": 1, "b": 2}
    keys.check_collisions()
    keys.cache["c"] = 1
    with pytest.raises(HashCollision, match="'a' and 'c'"):
        keys.check_collisions()


def test_no_flipped_bit_of_a_footer_or_page_gives_other_rows(tmp_path):
    columns = log(rows=400)
    columns["timestamp"] = (columns["timestamp"] * 1000).astype("datetime64[ms]")
    columns["device"] = [f"d{i % 7}" for i in range(400)]
    path = write(tmp_path / "log.parquet", columns)
    recipe = config(path, fields=[{"name": "device", "side": "request", "kind": "categorical"}])
    truth = encode(recipe, SPLIT, tmp_path / "truth")
    clean, rng, refused = path.read_bytes(), random.Random(11), 0
    footer = len(clean) - 8 - int.from_bytes(clean[-8:-4], "little")
    for turn in range(300):
        at = rng.randrange(footer, len(clean) - 4) if turn % 2 else rng.randrange(4, footer)
        data = bytearray(clean)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            found = encode(recipe, SPLIT, tmp_path / "out")
        except RecsysKdError:
            refused += 1
            continue
        for name in ("row_id", "label", "timestamp", "user", "item", "request"):
            assert np.array_equal(found.column(name), truth.column(name)), f"byte {at}"
        assert np.array_equal(found.batch(slice(0, 400)).ids["device"], truth.batch(slice(0, 400)).ids["device"])
    assert refused > 150


def test_an_empty_file_needs_no_checksums(tmp_path):
    (tmp_path / "log").mkdir()
    write(tmp_path / "log" / "a.parquet", log())
    pq.write_table(pa.table(log()).slice(0, 0), tmp_path / "log" / "b.parquet")
    data = encode(config(tmp_path / "log", require_checksums=True), SPLIT, tmp_path / "out")
    assert (data.counts.empty_files, data.counts.files_without_checksums) == (1, 0)
