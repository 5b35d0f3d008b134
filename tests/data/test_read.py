"""Reading: every row accounted for, no bad byte believed."""

import datetime as dt
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.data.counts import TooManyBadRows, TooManyDuplicates
from recsys_kd.data.dedup import Deduplicator, HashSpill
from recsys_kd.data.drift import SchemaDrift
from recsys_kd.data.encode import encode
from recsys_kd.data.evidence import ConstantLabel
from recsys_kd.data.files import BadFile, NoChecksums, NoParquet
from recsys_kd.data.layout import MissingColumn, UnknownVocabulary, WrongColumnType
from recsys_kd.data.log import NothingReadable
from recsys_kd.data.split import EmptySplit
from recsys_kd.errors import RecsysKdError
from recsys_kd.schema import ITEM, USER
from recsys_kd.settings import DataConfig, SplitConfig

DAY = 86_400
SPLIT = SplitConfig(validation_days=1, test_days=1)


def log(rows=400, days=8, seed=0, **columns):
    rng = np.random.default_rng(seed)
    base = {
        "user_id": rng.integers(1, 9, rows),
        "item_id": rng.integers(100, 109, rows),
        "timestamp": np.sort(rng.integers(0, days * DAY, rows)) + 1_700_000_000,
        "label": (rng.random(rows) < 0.4).astype(np.float32),
        "request_id": np.arange(rows),
    }
    return {**base, **columns}


def write(path, columns, checksums=True):
    pq.write_table(pa.table(columns), path, write_page_checksum=checksums)
    return path


def config(path, columns=None, **more):
    return DataConfig.model_validate({"path": path, "columns": {"request_id": "request_id", **(columns or {})}, **more})


def reading(tmp_path, table, **more):
    return encode(config(write(tmp_path / "log.parquet", table), **more), SPLIT, tmp_path / "out")


def test_clean_rows_are_all_used_in_time_order(tmp_path):
    data = reading(tmp_path, log())
    assert (data.counts.read, data.counts.used, data.counts.bad) == (400, 400, 0)
    stamp = data.column("timestamp")
    assert (np.diff(stamp) >= 0).all() and stamp[0] % 1000 == 0
    assert data.splits["train"].stop == data.splits["validation"].start


def test_each_bad_row_is_quarantined_with_its_reason(tmp_path):
    columns = log()
    label = columns["label"].copy()
    label[[3, 4, 5]] = [np.nan, -1.0, 2.0]
    user = [None if i == 7 else int(u) for i, u in enumerate(columns["user_id"])]
    weight = np.ones(400)
    weight[9] = -0.5
    stamp = columns["timestamp"].copy()
    stamp[0] = 1
    columns |= {"label": label, "user_id": user, "weight": weight, "timestamp": stamp}
    data = reading(
        tmp_path,
        columns,
        columns={"request_id": "request_id", "weight": "weight"},
        window={"start": "2020-01-01"},
        max_quarantine=0.1,
    )
    expected = {"nan": 1, "negative_label": 1, "out_of_range": 2, "null_key": 1, "timestamp_out_of_window": 1}
    assert dict(data.counts.quarantined) == expected
    assert data.counts.read == data.counts.used + 6
    kept = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert {(r["row"], r["reason"]) for r in kept} == {
        (0, "timestamp_out_of_window"), (3, "nan"), (4, "negative_label"), (5, "out_of_range"), (7, "null_key"),
        (9, "out_of_range"),
    }  # fmt: skip


def test_text_that_is_no_number_or_date_is_wrong_type(tmp_path):
    columns = log()
    columns["label"] = ["oops" if i == 2 else str(int(v)) for i, v in enumerate(columns["label"])]
    base = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    columns["timestamp"] = [
        "yesterday" if i == 5 else (base + dt.timedelta(hours=i / 3)).isoformat() for i in range(400)
    ]
    data = reading(tmp_path, columns, max_quarantine=0.1)
    assert dict(data.counts.quarantined) == {"wrong_type": 2}
    kept = pq.read_table(data.quarantine)
    # The rows that are bad, and no others: a batch without nulls once had its first two rows marked instead.
    assert sorted(kept["row"].to_pylist()) == [2, 5]
    assert np.asarray(data.column("timestamp")).min() >= base.timestamp() * 1000


def test_dates_that_are_all_unreadable_stop_the_run(tmp_path):
    with pytest.raises(TooManyBadRows, match="400"):
        reading(tmp_path, log(timestamp=["31/12/2025"] * 400))


def test_too_many_bad_rows_stop_the_run_with_counts_and_place(tmp_path):
    columns = log()
    columns["label"] = np.where(np.arange(400) < 8, np.nan, columns["label"])
    with pytest.raises(TooManyBadRows) as error:
        reading(tmp_path, columns)
    for word in ("8 of 400", "nan 8", "log.parquet", "data.max_quarantine", "quarantine.parquet"):
        assert word in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_first_bad_value_is_told_with_its_row_and_few_bad_rows_are_no_wrong_column(tmp_path):
    label = np.where(np.arange(400) == 7, -3.0, log()["label"])
    words = r"log.parquet, column 'label', negative_label, 1 rows, the first is -3.0 in row 7\. .* raise data.max_quar"
    with pytest.raises(TooManyBadRows, match=words):
        reading(tmp_path, log(label=label))


def test_where_most_rows_are_bad_the_column_is_to_be_looked_at_and_not_the_limit(tmp_path):
    words = "so many are no accident: look at column 'label': .*data.columns; labels reach to data.label_max"
    with pytest.raises(TooManyBadRows, match=words) as error:
        reading(tmp_path, log(label=np.full(400, 5.0)))
    assert "raise data.max_quarantine" not in str(error.value)


def test_a_log_that_is_mostly_duplicates_stops_and_says_what_a_duplicate_is(tmp_path):
    columns = {k: np.tile(v, 3) for k, v in log().items()}
    words = (
        r"800 of 1,200 rows \(66.67%\) are duplicates, and data.max_duplicates is 50%: rows alike in user_id, "
        "item_id, timestamp and request_id are one event, of which the first read is kept"
    )
    with pytest.raises(TooManyDuplicates, match=words):
        reading(tmp_path, columns)
    assert reading(tmp_path, columns, max_duplicates=0.7).counts.used == 400


def test_a_log_that_is_there_exactly_twice_stops_and_one_without_duplicates_never_does(tmp_path):
    twice = {k: np.tile(v, 2) for k, v in log().items()}
    with pytest.raises(TooManyDuplicates, match=r"400 of 800 rows \(50.00%\) are duplicates.* Is a file there twice"):
        reading(tmp_path, twice)
    assert reading(tmp_path, twice, max_duplicates=0.51).counts.used == 400
    assert reading(tmp_path, log(), max_duplicates=0).counts.used == 400


def test_duplicates_with_another_label_than_the_row_that_is_kept_are_counted_and_told(tmp_path):
    columns = log()
    again = {k: v[:30].copy() for k, v in columns.items()}
    again["label"][:7] = 1 - again["label"][:7]
    counts = reading(tmp_path, {k: np.concatenate([v, again[k]]) for k, v in columns.items()}).counts
    assert (counts.deduplicated, counts.contradicting, counts.used) == (30, 7, 400)
    assert "7 duplicates have another label than the row that is kept" in counts.notes()


def test_a_repeated_event_is_used_once_across_files(tmp_path):
    (tmp_path / "log").mkdir()
    columns = log()
    write(tmp_path / "log" / "a.parquet", columns)
    write(tmp_path / "log" / "b.parquet", {k: v[:30] for k, v in columns.items()})
    data = encode(config(tmp_path / "log"), SPLIT, tmp_path / "out")
    assert (data.counts.read, data.counts.used, data.counts.deduplicated) == (430, 400, 30)
    assert len(np.unique(data.column("row_id"))) == 400


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=200))
def test_duplicates_are_those_a_set_would_find(tmp_path_factory, values):
    keys = np.array(values, dtype=np.int64)
    spill = HashSpill(tmp_path_factory.mktemp("spill"), 10_000_000)
    for part in np.array_split(keys, 3):
        spill.add(part)
    repeated, extra = spill.repeated()
    assert extra == len(values) - len(set(values))
    seen: set[int] = set()
    wanted = [v in seen or seen.add(v) is not None for v in values]
    assert Deduplicator(repeated).duplicates(keys, (keys,)).tolist() == wanted


def test_a_flipped_byte_is_an_error_never_another_row(tmp_path):
    path = write(tmp_path / "log.parquet", log(rows=3000))
    truth = encode(config(path), SPLIT, tmp_path / "truth")
    clean = path.read_bytes()
    rng, refused = random.Random(5), 0
    for _ in range(60):
        data = bytearray(clean)
        data[rng.randrange(4, len(data) - 8)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            found = encode(config(path), SPLIT, tmp_path / "out")
        except RecsysKdError:
            refused += 1
            continue
        for name in ("row_id", "label", "timestamp", "user", "item"):
            assert np.array_equal(found.column(name), truth.column(name))
    assert refused > 40


def test_a_truncated_file_is_named_or_excluded_and_counted(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    write(folder / "a.parquet", log())
    bad = write(folder / "b.parquet", log(seed=1, request_id=np.arange(400) + 1000))
    bad.write_bytes(bad.read_bytes()[:-50])
    with pytest.raises(BadFile, match=r"b\.parquet"):
        encode(config(folder), SPLIT, tmp_path / "out")
    data = encode(config(folder, on_bad_file="exclude"), SPLIT, tmp_path / "out")
    assert data.counts.excluded_files == [str(bad)] and data.counts.used == 400


def test_a_log_of_which_no_file_can_be_read_is_not_told_as_one_without_rows_alone(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    bad = write(folder / "b.parquet", log())
    bad.write_bytes(bad.read_bytes()[:-50])
    with pytest.raises(NothingReadable, match=r"1 file\(s\) can't be read whole and are excluded: .*b\.parquet; give"):
        encode(config(folder, on_bad_file="exclude"), SPLIT, tmp_path / "out")


def test_a_corrupt_page_excludes_the_whole_file(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    write(folder / "a.parquet", log())
    bad = write(folder / "b.parquet", log(seed=1, request_id=np.arange(400) + 1000))
    data = bytearray(bad.read_bytes())
    data[200] ^= 255
    bad.write_bytes(data)
    found = encode(config(folder, on_bad_file="exclude"), SPLIT, tmp_path / "out")
    assert found.counts.excluded_files == [str(bad)] and found.counts.read == 400


def test_missing_checksums_are_counted_or_refused(tmp_path):
    path = write(tmp_path / "log.parquet", log(), checksums=False)
    assert encode(config(path), SPLIT, tmp_path / "out").counts.files_without_checksums == 1
    with pytest.raises(NoChecksums, match="write_page_checksum"):
        encode(config(path, require_checksums=True), SPLIT, tmp_path / "out")


def test_files_that_disagree_about_a_column_are_named(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    write(folder / "a.parquet", log())
    write(folder / "b.parquet", log(user_id=[str(i) for i in range(400)]))
    with pytest.raises(SchemaDrift, match=r"b\.parquet.*user_id.*string.*int64"):
        encode(config(folder), SPLIT, tmp_path / "out")


def test_empty_files_are_counted(tmp_path):
    folder = tmp_path / "log" / "day=1"
    folder.mkdir(parents=True)
    write(folder / "a.parquet", log())
    pq.write_table(pa.table(log()).slice(0, 0), folder / "b.parquet", write_page_checksum=True)
    data = encode(config(tmp_path / "log"), SPLIT, tmp_path / "out")
    assert (data.counts.files, data.counts.empty_files, data.counts.used) == (2, 1, 400)


@pytest.mark.parametrize(
    ("columns", "more", "error", "words"),
    [
        ({}, {"columns": {"label": "clicked"}}, MissingColumn, ["data.columns.label", "clicked", "user_id, item_id"]),
        ({"label": np.ones(400)}, {}, ConstantLabel, ["data.columns.label", "1"]),
        ({"user_id": np.random.rand(400)}, {}, WrongColumnType, ["user_id", "double"]),
        (
            {"h": [[1]] * 400},
            {"fields": [{"name": "h", "side": "request", "kind": "bag", "vocabulary": "basket"}]},
            UnknownVocabulary,
            ["data.fields[0].vocabulary", "'basket'"],
        ),
    ],
)
def test_a_recipe_that_does_not_fit_the_log_is_explained(tmp_path, columns, more, error, words):
    with pytest.raises(error) as caught:
        reading(tmp_path, log(**columns), **more)
    for word in words:
        assert word in str(caught.value)


def test_no_file_and_no_rows_for_a_split_are_errors(tmp_path):
    with pytest.raises(NoParquet, match="does not exist"):
        encode(config(tmp_path / "nowhere"), SPLIT, tmp_path / "out")
    with pytest.raises(EmptySplit, match=r"'train'.*validation_days"):
        encode(config(write(tmp_path / "l.parquet", log())), SplitConfig(test_days=99), tmp_path / "out")


def test_rare_and_unseen_ids_use_the_fallback_row(tmp_path):
    columns = log()
    columns["user_id"] = np.where(np.arange(400) == 10, 777, columns["user_id"])
    columns["user_id"][-1] = 888
    data = reading(tmp_path, columns, min_count=2)
    fallback = data.schema.vocabularies[USER].fallback
    batch = data.batch(slice(0, 400))
    assert 777 not in data.keys(USER) and 888 not in data.keys(USER)
    assert batch.ids[USER][-1] == fallback and (batch.ids[USER] == fallback).sum() == 2
    assert data.traffic(USER).sum() == len(data.splits["train"])
    assert batch.ids[ITEM].max() < data.schema.vocabularies[ITEM].fallback


def test_histories_categories_vectors_and_catalogue_are_joined(tmp_path):
    columns = log()
    columns["history"] = [[100, 999, 101][: i % 4] for i in range(400)]
    columns["device"] = [None if i == 0 else "ab"[i % 2] for i in range(400)]
    items = {
        "item_id": np.arange(100, 108),
        "price": np.arange(8.0),
        "image": [[float(i), 1.0] for i in range(8)],
    }
    data = reading(
        tmp_path,
        columns,
        catalogue=write(tmp_path / "items.parquet", items),
        fields=[
            {"name": "history", "side": "request", "kind": "bag", "vocabulary": "item_id", "max_length": 2},
            {"name": "device", "side": "request", "kind": "categorical"},
            {"name": "price", "side": "item", "kind": "dense"},
            {"name": "image", "side": "item", "kind": "vector", "dim": 2},
        ],
    )
    batch = data.batch(np.array([3, 0]))
    keys = data.keys(ITEM)
    fallback = data.schema.vocabularies[ITEM].fallback
    assert batch.bags["history"].offsets.tolist() == [0, 2, 2]
    assert batch.bags["history"].values.tolist() == [fallback, int(np.searchsorted(keys, 101))]
    assert batch.ids["device"][1] == data.schema.vocabularies["device"].fallback
    assert data.counts.missing_items == 1 and data.item_dense("price").shape == (len(data.keys("item")) + 1, 1)
    mean, std = np.arange(8.0).mean(), np.arange(8.0).std()
    assert data.item_dense("price")[2, 0] == pytest.approx((2 - mean) / std, abs=1e-5)
    assert data.item_dense("price")[-1, 0] == 0.0


def test_a_split_column_decides_over_time(tmp_path):
    columns = log()
    columns["part"] = ["test" if i < 50 else "validation" if i < 100 else "train" for i in range(400)]
    path = write(tmp_path / "log.parquet", columns)
    data = encode(config(path), SplitConfig(column="part"), tmp_path / "out")
    assert {name: len(r) for name, r in data.splits.items()} == {"train": 300, "validation": 50, "test": 50}
