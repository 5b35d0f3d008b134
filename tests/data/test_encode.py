"""Encoding: what a catalogue lacks is counted, what a split lacks is said early, leftovers stay with their run."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.data.columns import rows_of
from recsys_kd.data.convert import TextKeys
from recsys_kd.data.counts import Counts, NothingUsable
from recsys_kd.data.encode import encode
from recsys_kd.data.evidence import ConstantLabel
from recsys_kd.data.files import BadFile
from recsys_kd.data.items import BadCatalogue, RawBag
from recsys_kd.data.log import open_log
from recsys_kd.data.ordered import sorted_set
from recsys_kd.data.read import scan, usable
from recsys_kd.data.varying import differ
from recsys_kd.data.vocabulary import EmptyVocabulary
from recsys_kd.ids import hash_string, hash_strings
from recsys_kd.progress import SILENT
from recsys_kd.settings import DataConfig
from tests.data.test_read import SPLIT, config, log, reading, write

IMAGE = {"name": "image", "side": "item", "kind": "vector", "dim": 2}
PRICE = {"name": "price", "side": "item", "kind": "dense"}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_whose_labels_are_all_the_same_is_refused_before_training(tmp_path, split):
    columns = log()
    part = np.array(["test" if i >= 350 else "validation" if i >= 300 else "train" for i in range(400)])
    columns["label"] = np.where(part == split, 0.0, columns["label"])
    path = write(tmp_path / "log.parquet", {**columns, "part": part})
    with pytest.raises(ConstantLabel, match=rf"data\.columns\.label: all 50 {split} rows have label 0; .*split"):
        encode(config(path), SPLIT.model_copy(update={"column": "part"}), tmp_path / "out")


def catalogue(tmp_path, image, price=None):
    items = {"item_id": np.arange(100, 100 + len(image)), "image": image, "price": price or [1.0] * len(image)}
    return write(tmp_path / "items.parquet", items)


def test_a_catalogue_of_vectors_of_another_length_is_refused(tmp_path):
    path = catalogue(tmp_path, [[1.0, 2.0, 3.0]] * 9)
    words = r"items\.parquet: column 'image': 9 of 9 items .*\(the first, item 100, has 3 numbers\).*`dim: 2`"
    with pytest.raises(BadCatalogue, match=words):
        reading(tmp_path, log(), catalogue=path, fields=[IMAGE])


def test_bad_catalogue_values_are_counted_up_to_the_limit_and_refused_above(tmp_path):
    image = [[1.0, float(i)] for i in range(9)]
    image[2], image[3], image[4] = None, [np.inf, 1.0], [np.nan, 1.0]
    path = catalogue(tmp_path, image, [1.0, None, *range(7)])
    data = reading(tmp_path, log(), catalogue=path, fields=[IMAGE, PRICE], max_quarantine=0.4)
    assert data.counts.bad_items == {"image": 3, "price": 1}
    assert Counts.from_json(data.counts.to_json()) == data.counts
    assert data.counts.notes() == ["catalogue items without a usable value: image 3, price 1"]
    assert data.item_dense("image")[2:5].tolist() == [[0, 0]] * 3
    with pytest.raises(BadCatalogue, match=r"column 'image': 3 of 9 items .*item 102, is null.*data\.max_quarantine"):
        reading(tmp_path, log(), catalogue=path, fields=[IMAGE, PRICE], max_quarantine=0.2)
    with pytest.raises(BadCatalogue, match=r"column 'price': 1 of 9 items .*item 101, is null.*missing: accept"):
        reading(tmp_path, log(), catalogue=path, fields=[PRICE], max_quarantine=0.1)
    accepted = [{**IMAGE, "missing": "accept"}, {**PRICE, "missing": "accept"}]
    data = reading(tmp_path, log(), catalogue=path, fields=accepted, max_quarantine=0.0)
    assert data.counts.bad_items == {"image": 3, "price": 1}


def test_all_that_was_left_out_is_told_in_a_line_each():
    counts = Counts(
        missing_items=1200, quarantined=Counter({"nan": 2, "null_key": 1001}), empty_files=1, excluded_files=["a", "b"],
        files_without_checksums=3, bad_items={"price": 4},
    )  # fmt: skip
    assert counts.notes() == [
        "quarantined: null_key 1,001, nan 2",
        "catalogue items without a usable value: price 4",
        "1,200 items of the log are not in the catalogue",
        "1 file(s) hold no rows",
        "3 file(s) have no page checksums: flipped bytes would go unseen",
        "2 file(s) can't be read whole and are excluded: a, b",
    ]
    assert Counts(read=5, used=5).notes() == []


def test_the_quarantine_lies_with_the_rows_it_belongs_to(tmp_path):
    columns = log()
    columns["label"][3] = np.nan
    data = reading(tmp_path, columns, max_quarantine=0.1)
    assert data.quarantine == tmp_path / "out" / "quarantine.parquet"
    assert pq.read_table(data.quarantine)["row"].to_pylist() == [3]
    assert reading(tmp_path, log()).quarantine is None


def test_the_scan_spills_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    data = reading(tmp_path, log())
    assert data.counts.used == 400 and sorted(p.name for p in tmp_path.iterdir()) == ["log.parquet", "out"]
    found = scan(open_log(config(tmp_path / "log.parquet"), SPLIT), tmp_path / "q.parquet", tmp_path / "spill")
    assert found.counts.used == 400 and not list((tmp_path / "spill").iterdir())


def test_without_a_weight_column_every_weight_is_1_and_takes_no_memory(tmp_path):
    weight = reading(tmp_path, log()).column("weight")
    assert weight.shape == (400,) and weight.dtype == np.float32 and (weight[10:20] == 1).all()
    assert weight.strides == (0,)


def test_strings_hashed_together_have_the_key_of_each():
    values = ["", "a", "käse", "u" * 300, "a\x00b", "日本", "1"]
    assert hash_strings(values).tolist() == [hash_string(v) for v in values]


def test_a_window_that_ends_before_it_starts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"start.*2026-02-01.*end.*2026-01-01"):
        DataConfig.model_validate({"path": tmp_path, "window": {"start": "2026-02-01", "end": "2026-01-01"}})


def test_bags_of_many_blocks_keep_their_rows(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    columns = log()
    columns["history"] = [rng.integers(100, 109, rng.integers(0, 7)).tolist() for _ in range(400)]
    shuffled = rng.permutation(400)
    table = {k: [v[i] for i in shuffled] for k, v in columns.items()}
    history = {"name": "history", "side": "request", "kind": "bag", "vocabulary": "item_id", "max_length": 4}
    monkeypatch.setattr("recsys_kd.data.ordered._CHUNK", 7)
    data = reading(tmp_path, table, fields=[history])
    keys, batch = data.keys("item_id"), data.batch(slice(0, 400))
    order = np.lexsort((columns["request_id"], columns["timestamp"]))
    bag = batch.bags["history"]
    for at, row in enumerate(order):
        got = keys[bag.values[bag.offsets[at] : bag.offsets[at + 1]]].tolist()
        assert got == columns["history"][row][-4:]
    users = np.unique(columns["user_id"][order], return_inverse=True)[1]
    assert data.column("user").tolist() == users.tolist()


def test_keys_stay_the_same_when_the_memory_of_strings_is_full(monkeypatch):
    monkeypatch.setattr("recsys_kd.data.convert._CACHE_LIMIT", 5)
    keys, rng = TextKeys(), np.random.default_rng(0)
    for _ in range(20):
        values = [f"u{i}" for i in rng.integers(0, 12, 4)]
        assert keys(pa.array([*values, None])).tolist()[:4] == [hash_string(v) for v in values]
        assert len(keys.cache) <= 5


def test_items_that_are_all_too_rare_are_refused_with_the_most_frequents_count(tmp_path):
    columns = log()
    columns["item_id"] = np.where(np.arange(400) < 200, 100, np.arange(400))
    train = int((columns["timestamp"] <= columns["timestamp"][-1] - 2 * 86_400).sum())
    assert train > 200
    words = rf"data\.min_count: 999: none of the {train - 199} items in the training rows .*most frequent: 200 times"
    with pytest.raises(EmptyVocabulary, match=words) as caught:
        reading(tmp_path, columns, min_count=999)
    assert caught.value.exit_code == 2


def test_a_shop_of_guests_is_encoded_without_users_and_that_is_said(tmp_path):
    said = []
    path = write(tmp_path / "log.parquet", log(user_id=[f"guest-{i}" for i in range(400)]))
    silent = SimpleNamespace(note=said.append, task=SILENT.task)
    data = encode(config(path), SPLIT, tmp_path / "out", silent)
    assert len(data.keys("user_id")) == 0 and data.schema.vocabularies["user_id"].size == 1
    assert len(data.keys("item_id")) == 9 and not data.batch(slice(0, 400)).ids["user_id"].any()
    assert "data.min_count: 2: none of the" in said[0] and "users" in said[0] and "1 times" in said[0]


def test_a_log_without_any_good_row_is_refused_however_many_may_be_bad(tmp_path):
    with pytest.raises(NothingUsable, match=r"all 400 rows are bad \(null_key 400\); look at .*quarantine\.parquet"):
        reading(tmp_path, log(user_id=pa.nulls(400, pa.int64())), max_quarantine=1.0)
    assert (tmp_path / "out.quarantine.parquet").exists()


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-4, 4), max_size=60), st.integers(0, 40))
def test_rows_are_found_in_any_order_of_the_keys_and_for_any_size_of_the_vocabulary(values, rows):
    keys = np.array(values, dtype=np.int64)
    known = sorted_set(np.sort(keys[:rows]))
    wanted = {int(k): i for i, k in enumerate(sorted(set(values[:rows])))}
    assert known.tolist() == list(wanted)
    assert rows_of(keys, known).tolist() == [wanted.get(v, len(wanted)) for v in values]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_kd.data.columns._CACHED", 0)
        assert rows_of(keys, known).tolist() == [wanted.get(v, len(wanted)) for v in values]


def test_the_second_pass_takes_the_first_ones_keys_and_lets_go_of_them(tmp_path, monkeypatch):
    path = write(tmp_path / "log.parquet", log(user_id=[f"u{i % 7}" for i in range(400)]))
    found = scan(open_log(config(path), SPLIT), tmp_path / "q.parquet", tmp_path / "spill")
    assert len(found.text["user_id"].cache) == 7
    monkeypatch.setattr("recsys_kd.data.convert.hash_strings", lambda values: np.zeros(len(list(values)), np.int64))
    users = np.concatenate([rows.user for _, rows in usable(found)])
    assert users.tolist() == [hash_string(f"u{i % 7}") for i in range(400)]
    assert found.text == {}
    assert [rows.user.any() for _, rows in usable(found)] == [False]  # a third pass makes its own


def test_what_of_an_items_field_varies_in_the_log_is_counted_and_told_with_an_example(tmp_path):
    columns = log()
    item, last_train = columns["item_id"], 300
    part = np.array(["train"] * last_train + ["validation"] * 50 + ["test"] * 50)
    price, shelf = item * 1.0, np.array([f"s{i}" for i in item])
    tags, image = [["a", f"t{i}"] for i in item], [[float(i), 1.0] for i in item]
    mine = np.flatnonzero(item == 103)
    price[mine[0]], shelf[mine[:2]], tags[mine[3]], image[mine[2]] = 3.5, "s9", ["a", "b"], [0.5, 1.0]
    tests = np.flatnonzero((item == 104) & (part == "test"))
    shelf[tests] = "later"
    fields = [
        {"name": "price", "side": "item", "kind": "dense"},
        {"name": "shelf", "side": "item", "kind": "categorical"},
        {"name": "tags", "side": "item", "kind": "bag"},
        {"name": "image", "side": "item", "kind": "vector", "dim": 2},
        {"name": "same", "side": "item", "kind": "dense"},
        {"name": "own", "side": "candidate", "kind": "dense", "column": "price"},
    ]
    table = {**columns, "price": price, "shelf": shelf, "tags": tags, "image": image, "same": item * 2.0, "part": part}
    path = write(tmp_path / "log.parquet", table)
    data = encode(config(path, fields=fields), SPLIT.model_copy(update={"column": "part"}), tmp_path / "out")
    found = data.counts.varying
    assert {name: (v.items, v.rows) for name, v in found.items()} == {
        "price": (1, 1), "shelf": (2, 2 + len(tests)), "tags": (1, 1), "image": (1, 1),
    }  # fmt: skip
    assert {name: (v.item, v.other, v.used) for name, v in found.items()} == {
        "price": ("103", "3.5", "103.0"), "shelf": ("103", "'s9'", "'s103'"),
        "tags": ("103", "['a', 'b']", "['a', 't103']"), "image": ("103", "[0.5, 1.0]", "[103.0, 1.0]"),
    }  # fmt: skip
    told = data.counts.notes()[0]
    assert told.startswith(
        "field 'price' is to be the item's own, yet 1 item(s) of the training days have several values in the "
        "log: the last of those days is used"
    )
    assert "and 1 rows say another (item 103: 3.5, used 103.0)" in told and "`side: candidate`" in told
    assert Counts.from_json(data.counts.to_json()) == data.counts


def test_items_known_by_texts_are_named_and_a_missing_value_is_one_of_several(tmp_path):
    columns = log()
    name = [f"p{i}" for i in columns["item_id"]]
    shelf = ["x"] * 400
    at = name.index("p105")
    shelf[at] = None
    field = {"name": "shelf", "side": "item", "kind": "categorical"}
    data = reading(tmp_path, {**columns, "item_id": name, "shelf": shelf}, fields=[field])
    one = data.counts.varying["shelf"]
    assert (one.items, one.rows, one.item, one.other, one.used) == (1, 1, "'p105'", "null", "'x'")


def test_labels_between_0_and_1_are_counted(tmp_path):
    columns = log()
    columns["label"][:7] = 0.5
    assert reading(tmp_path, columns).counts.soft_labels == 7


def test_a_catalogue_that_can_not_be_read_is_told_no_way_to_leave_it_out(tmp_path):
    path = catalogue(tmp_path, [[1.0, 2.0]] * 9)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadFile, match=r"items\.parquet: can't be read whole \(.*\); write it again from its source$"):
        reading(tmp_path, log(), catalogue=path, fields=[IMAGE], on_bad_file="exclude")


def test_numbers_beyond_float32_are_told_without_a_warning_of_numpys(tmp_path, recwarn):
    text = ["1.0"] * 400
    text[5] = "1e300"
    vectors = [[1.0, 2.0]] * 399 + [[1e300, 1.0]]
    own = {"name": "own", "side": "candidate", "kind": "vector", "dim": 2}
    names = {"request_id": "request_id", "weight": "weight"}
    table = {**log(), "own": vectors, "weight": text}
    data = reading(tmp_path, table, fields=[own], columns=names, max_quarantine=0.1)
    assert dict(data.counts.quarantined) == {"out_of_range": 1, "bad_vector": 1}
    path = catalogue(tmp_path, [[1.0, 1.0]] * 9, [1.0] * 8 + [1e300])
    with pytest.raises(
        BadCatalogue, match=r"column 'price': 1 of 9 .* item 108, is 1e\+300, more than a float32 holds\)"
    ):
        reading(tmp_path, log(), catalogue=path, fields=[PRICE], max_quarantine=0.1)
    assert [str(w.message) for w in recwarn.list if issubclass(w.category, RuntimeWarning)] == []


CELLS = st.lists(st.tuples(*[st.lists(st.integers(0, 2), max_size=3)] * 2), max_size=12)


@given(CELLS)
def test_lists_differ_where_pythons_do(cells):
    one, other = (
        RawBag(np.array([v for cell in lists for v in cell], dtype=np.int64), np.cumsum([0, *map(len, lists)]))
        for lists in ([a for a, _ in cells], [b for _, b in cells])
    )
    assert differ(one, other).tolist() == [a != b for a, b in cells]
