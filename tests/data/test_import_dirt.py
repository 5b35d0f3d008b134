"""Import of tables as shops have them: gaps, codes, clocks and joins that would be misread without a word."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_kd.data.encode import encode
from recsys_kd.data.interactions import import_interactions
from recsys_kd.data.interactions_config import BadImport, load_import
from recsys_kd.data.interactions_read import UnreadableTable, read_table
from recsys_kd.errors import InputError
from recsys_kd.progress import SILENT
from recsys_kd.settings import load_recipe


def purchases(n=100, **columns):
    base = {
        "who": [f"u{i % 7}" for i in range(n)],
        "what": [f"p{(i * i * i + i) % 31}" for i in range(n)],
        "when": [f"2026-01-{1 + i // 5:02d}" for i in range(n)],
    }
    return {**base, **columns}


def prepare(tmp_path, table, suffix="parquet", types=None, **more):
    if suffix == "csv":
        pd.DataFrame(table).to_csv(tmp_path / "s.csv", index=False)
    else:
        arrow = pa.table({k: pa.array(v, (types or {}).get(k)) for k, v in table.items()})
        pq.write_table(arrow, tmp_path / "s.parquet", write_page_checksum=True)
    data = {
        "name": "s", "source": f"s.{suffix}", "columns": {"user": "who", "item": "what", "time": "when"},
        "negatives": 2, "test_days": 2, "validation_days": 2, **more,
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(data))
    return load_import(tmp_path / "s.yaml")


def imported(tmp_path, table, **more):
    found = import_interactions(prepare(tmp_path, table, **more), tmp_path / "out")
    return found, pq.read_table(tmp_path / "out" / "log.parquet").to_pandas()


def side(tmp_path, name, columns):
    pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet", write_page_checksum=True)
    return f"{name}.parquet"


def positives(log):
    return log[log.label == 1]


def test_rows_without_user_item_or_time_are_dropped_and_counted_not_given_to_another(tmp_path):
    columns = purchases()
    columns["who"][:10] = [None] * 9 + [""]
    columns["what"][10:14] = [None] * 4
    columns["when"][14:17] = [None] * 3
    found, log = imported(tmp_path, columns)
    assert (found.dropped["no user"], found.dropped["no item"], found.dropped["no time"]) == (10, 4, 3)
    assert found.read == found.events + sum(found.dropped.values()) and len(positives(log)) == found.events
    got = positives(log).groupby("user_id").size().to_dict()
    assert got == pd.Series(columns["who"][17:]).value_counts().to_dict()


def test_a_label_of_0_is_no_positive(tmp_path):
    label = [1.0] * 100
    label[3], label[4], label[5], label[6] = 0.0, -1.0, None, 5.0
    source = {"user": "who", "item": "what", "time": "when", "label": "bought"}
    found, log = imported(tmp_path, purchases(bought=label), columns=source)
    assert found.dropped["label not positive"] == 2 and found.dropped["no label"] == 1 and found.events == 97
    assert len(positives(log)) == 97


def test_a_gap_in_a_column_of_numbers_is_no_time(tmp_path):
    stamp = [1_700_000_000.0 + 3600 * i for i in range(100)]
    stamp[5] = np.nan
    found, log = imported(tmp_path, purchases(when=stamp))
    assert found.dropped["no time"] == 1 and log.timestamp.min() == 1_700_000_000_000


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)])
def test_numeric_times_are_of_the_unit_named(tmp_path, unit, factor):
    stamp = [(1_700_000_000 + 3600 * i) * factor for i in range(100)]
    source = {"user": "who", "item": "what", "time": "when", "time_unit": unit}
    found, log = imported(tmp_path, purchases(when=stamp), columns=source)
    assert log.timestamp.min() == 1_700_000_000_000
    recipe = load_recipe(found.recipe)
    data = encode(recipe.data, recipe.split, tmp_path / "encoded")
    assert data.column("timestamp").max() == 1_700_000_000_000 + 99 * 3_600_000


def test_milliseconds_taken_for_seconds_are_refused(tmp_path):
    stamp = [1_700_000_000_000 + i for i in range(100)]
    with pytest.raises(BadImport, match=r"s\.parquet: columns\.time 'when': 1700000000000 .* columns\.time_unit"):
        imported(tmp_path, purchases(when=stamp))


def test_dates_that_could_be_read_two_ways_need_their_format(tmp_path):
    dates = [f"{1 + i // 10:02d}/02/2026" for i in range(100)]
    with pytest.raises(BadImport, match=r"'01/02/2026' is no ISO 8601 date.*columns\.time_format"):
        imported(tmp_path, purchases(when=dates))
    source = {"user": "who", "item": "what", "time": "when", "time_format": "%d/%m/%Y"}
    _, log = imported(tmp_path, purchases(when=dates), columns=source)
    assert log.timestamp.max() == pd.Timestamp("2026-02-10").value // 10**6


def test_events_within_one_second_are_two_events(tmp_path):
    stamp = pd.to_datetime(["2026-01-01T00:00:00.100", "2026-01-01T00:00:00.200"] * 50)
    what = ["a"] * 50 + ["b"] * 26 + ["c"] * 24
    found, _ = imported(tmp_path, {"who": ["u", "u"] * 50, "what": what, "when": stamp})
    assert found.events == 6 and found.dropped["duplicate"] == 94


def test_large_ids_beside_a_gap_keep_every_digit(tmp_path):
    ids = [2**60 + 1 + i % 3 for i in range(100)]
    ids[0] = None
    found, log = imported(tmp_path, purchases(who=ids), types={"who": pa.int64()})
    assert found.dropped["no user"] == 1
    assert set(log.user_id) == {2**60 + 1, 2**60 + 2, 2**60 + 3}


def test_codes_with_leading_zeros_in_csv_stay_apart(tmp_path):
    _, log = imported(tmp_path, purchases(who=[("007", "7", "0")[i % 3] for i in range(100)]), suffix="csv")
    assert set(log.user_id) == {"007", "7", "0"}


def test_whole_numbers_in_csv_are_int64_also_beside_gaps(tmp_path):
    who = [float(13085 + i % 5) for i in range(100)]
    who[0] = None
    found, log = imported(tmp_path, purchases(who=who), suffix="csv")
    assert found.dropped["no user"] == 1 and set(log.user_id) == {13085, 13086, 13087, 13088, 13089}


@pytest.mark.parametrize(
    ("who", "words"), [([1.5] * 100, "1.5"), ([2.0**60] * 100, "1.15"), ([[1]] * 100, "whole numbers or text")]
)
def test_what_is_no_id_is_refused(tmp_path, who, words):
    with pytest.raises(BadImport, match=rf"columns\.user 'who'.*{words}"):
        imported(tmp_path, purchases(who=who))


def joined(tmp_path, users=None, items=None):
    who = users or {"id": [f"u{i}" for i in range(6)], "land": list("abcabc"), "age": [1, 2, None, 4, 5, 6]}
    what = items or {"sku": [f"p{i}" for i in range(31)], "brand": [f"b{i % 4}" for i in range(31)],
                     "price": [float(i) for i in range(31)]}  # fmt: skip
    return {
        "users": {"path": side(tmp_path, "users", who), "key": "id",
                  "columns": {"land": "categorical", "age": "categorical"}},
        "items": {"path": side(tmp_path, "items", what), "key": "sku",
                  "columns": {"brand": "categorical", "price": "dense"}},
    }  # fmt: skip


def test_users_and_items_are_joined_by_key_and_the_log_can_be_encoded(tmp_path):
    found, log = imported(tmp_path, purchases(), **joined(tmp_path))
    lands = {f"u{i}": "abcabc"[i] for i in range(6)} | {"u6": None}
    ages = {"u0": 1, "u1": 2, "u2": None, "u3": 4, "u4": 5, "u5": 6, "u6": None}
    for user, land, age in zip(log.user_id, log.user_land, log.user_age, strict=True):
        assert land == lands[user] and (age == ages[user] or (pd.isna(age) and ages[user] is None))
    assert pq.read_schema(tmp_path / "out" / "log.parquet").field("user_age").type == pa.int64()
    assert found.unmatched == {"users": 1, "items": 0}
    assert json.loads((tmp_path / "out" / "import.json").read_text())["unmatched"] == {"users": 1, "items": 0}
    recipe = load_recipe(found.recipe)
    data = encode(recipe.data, recipe.split, tmp_path / "encoded")
    assert data.item_dense("price").shape == (32, 1) and data.counts.missing_items == 0


def test_a_key_that_is_repeated_or_missing_is_named(tmp_path):
    twice = {"id": ["u0", "u1", "u1"], "land": list("abc"), "age": [1, 2, 3]}
    with pytest.raises(BadImport, match=r"users\.parquet: 'u1' is in more than one row of column 'id'"):
        imported(tmp_path, purchases(), **joined(tmp_path, users=twice))
    twice = {"sku": ["p0", "p1", "p1", None], "brand": list("abcd"), "price": [1.0, 2.0, 3.0, 4.0]}
    with pytest.raises(BadImport, match=r"items\.parquet: 1 rows have no 'sku'"):
        imported(tmp_path, purchases(), **joined(tmp_path, items=twice))


def test_a_table_whose_keys_are_of_another_kind_is_refused_not_joined_to_nothing(tmp_path):
    other = {"sku": [1, 2, 3], "brand": list("abc"), "price": [1.0, 2.0, 3.0]}
    with pytest.raises(BadImport, match=r"items\.parquet: column 'sku' holds whole numbers.*holds text"):
        imported(tmp_path, purchases(), **joined(tmp_path, items=other))
    none = {"sku": ["x", "y", "z"], "brand": list("abc"), "price": [1.0, 2.0, 3.0]}
    with pytest.raises(BadImport, match=r"items\.parquet: none of the 21 items"):
        imported(tmp_path, purchases(), **joined(tmp_path, items=none))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"split": "lists"}, "test_lists"),
        ({"columns": {"user": "who", "item": "what", "order": "when"}}, "`order` has no days"),
        ({"seed": -1}, "seed: got -1; give a whole number, at least 0"),
        ({"recipe": {"student": {"widht": 3}}}, r"recipe\.yaml: student\.widht: unknown key"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, more, words):
    with pytest.raises(Exception, match=words) as caught:
        imported(tmp_path, purchases(), **more)
    assert caught.value.exit_code == 2 and not (tmp_path / "out").exists()


def test_a_file_of_settings_that_is_no_text_is_named(tmp_path):
    (tmp_path / "s.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(BadImport, match=r"s\.yaml: byte 6 is not UTF-8"):
        load_import(tmp_path / "s.yaml")


def test_the_command_prints_where_every_row_went(tmp_path):
    columns = purchases()
    columns["who"][:10] = [None] * 10
    prepare(tmp_path, columns)
    command = [sys.executable, "-m", "recsys_kd", "import", str(tmp_path / "s.yaml"), str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["read"] == 100 == found["events"] + sum(found["dropped"].values())
    assert (
        found["dropped"]["no user"] == 10 and found["rows"] == pq.read_metadata(tmp_path / "out/log.parquet").num_rows
    )
    assert (tmp_path / "out" / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"negatives": 21}, "^negatives: 21 beside each event's own item, of 21 items in all; give 20 at most"),
        ({"split": "leave_one_out", "test_negatives": 5000}, "^test_negatives: 5,000 .* of 21 items"),
    ],
)
def test_more_negatives_than_there_are_items_are_refused_before_any_is_drawn(tmp_path, more, words):
    with pytest.raises(BadImport, match=words):
        imported(tmp_path, purchases(400, when=["2026-01-01"] * 200 + ["2026-01-20"] * 200), **more)
    assert not (tmp_path / "out").exists()


def test_a_quantity_that_is_no_number_is_counted_as_such_not_as_returned(tmp_path):
    quantity = ["1"] * 100
    quantity[:3], quantity[3:5], quantity[5:9] = ["abc"] * 3, ["1,004"] * 2, ["-1"] * 4
    quantity[9] = None
    rule = [{"reason": "returned", "column": "quantity", "at_most": 0}]
    found, _ = imported(tmp_path, purchases(quantity=quantity), suffix="csv", drop=rule)
    assert {k: n for k, n in found.dropped.items() if n} == {
        "'quantity' is no number, such as 'abc'": 5, "no 'quantity'": 1, "returned": 4,
    }  # fmt: skip
    assert found.read == 100 == found.events + 10
    with pytest.raises(BadImport, match=r"no rows are left of 100 \('quantity' is no number, such as '1,004' 100\)"):
        imported(tmp_path, purchases(quantity=["1,004"] * 100), suffix="csv", drop=rule)


def svm(tmp_path, labels, **columns):
    lines = [f"{y} 1:{i % 7} 2:{(i * i * i + i) % 31} 3:{1_700_000_000 + 9_000 * i}" for i, y in enumerate(labels)]
    (tmp_path / "s.svm").write_text("\n".join(lines))
    data = {"name": "s", "source": "s.svm", "columns": {"user": "f1", "item": "f2", "time": "f3", **columns}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**data, "negatives": 2, "test_days": 2, "validation_days": 2}))
    return import_interactions(load_import(tmp_path / "s.yaml"), tmp_path / "out")


def test_libsvm_labels_of_0_are_no_events_that_nobody_asked_for(tmp_path):
    labels = [0, -1] + [1] * 98
    with pytest.raises(
        BadImport, match=r"^columns\.label: .*s\.svm: 2 of 100 rows have a label of 0 or less.*label: l"
    ):
        svm(tmp_path, labels)
    assert not (tmp_path / "out").exists()
    found = svm(tmp_path, labels, label="label")
    assert (found.events, found.dropped["label not positive"]) == (98, 2)
    assert svm(tmp_path, [1] * 100).events == 100


def test_an_order_that_is_a_time_is_told_to_be_one(tmp_path):
    rows = purchases(when=[1_700_000_000_000 + i for i in range(100)])
    columns = {"user": "who", "item": "what", "order": "when"}
    said = r"set columns\.time in place of columns\.order, and its columns\.time_unit: ms"
    with pytest.raises(BadImport, match=said):
        imported(tmp_path, rows, columns=columns, split="leave_one_out")


@pytest.mark.parametrize(
    ("unit", "factor", "told", "fits"),
    [("ms", 1, "1970-01-20", "s"), ("us", 1, "1970-01-01", "s"), ("us", 1000, "1970-01-20", "ms")],
)
def test_a_unit_that_puts_all_times_before_there_were_logs_is_refused_with_the_one_that_fits(
    tmp_path, unit, factor, told, fits
):
    stamp = [(1_700_000_000 + 3600 * i) * factor for i in range(100)]
    source = {"user": "who", "item": "what", "time": "when", "time_unit": unit}
    with pytest.raises(BadImport) as refused:
        imported(tmp_path, purchases(when=stamp), columns=source)
    said = f"the first, {stamp[0]}, would be of {told} in `{unit}`; set columns.time_unit: {fits}, which makes it"
    assert (
        f"s.parquet: columns.time 'when': {said} 2023-11-14" in str(refused.value) and not (tmp_path / "out").exists()
    )


def test_times_that_count_from_their_own_beginning_are_taken(tmp_path):
    found, log = imported(tmp_path, purchases(when=[3_600 * i for i in range(100)]))
    assert found.events == 100 and log.timestamp.min() == 0


def clicks(tmp_path, suffix="tsv", **cells):
    """Return an import of 100 rows of numbers; `cells`: column -> (row from 0, what stands there)."""
    table = {
        "who": [str(i % 7) for i in range(100)],
        "what": [str((i * i * i + i) % 31) for i in range(100)],
        "when": [str(1_767_226_050 + 3600 * i) for i in range(100)],
    }
    for column, (row, value) in cells.items():
        table[column][row] = value
    pd.DataFrame(table).to_csv(tmp_path / f"s.{suffix}", index=False, sep="\t" if suffix == "tsv" else ",")
    data = {"name": "s", "source": f"s.{suffix}", "columns": {"user": "who", "item": "what", "time": "when"}}

    def run(**more):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({**data, "negatives": 2, "past_items": "allow", **more}))
        told = Told()
        return import_interactions(load_import(tmp_path / "s.yaml"), tmp_path / "out", told), told.said

    return run


class Told(type(SILENT)):
    """Keeps what it is told, but for what is said of items that users have again."""

    def __init__(self):
        self.said = []

    def note(self, message):
        self.said += [message] if "had before" not in message else []


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_one_bad_cell_among_numeric_times_is_told_with_its_row_and_a_rule_drops_it(tmp_path, suffix):
    run = clicks(tmp_path, suffix, when=(41, "soon"))
    with pytest.raises(BadImport) as refused:
        run()
    assert str(refused.value) == (
        f"{tmp_path}/s.{suffix}: columns.time 'when': 'soon' is no number (row 43, the header being the first), as 99 "
        "of 100 are; mend it, or drop such rows by a rule (`{reason: no time, column: when, not_matching: '[0-9.]+'}`)"
    )
    found, said = run(drop=[{"reason": "no time", "column": "when", "not_matching": "[0-9.]+"}])
    assert found.events == 99 and found.dropped["no time"] == 1 and said == []
    log = pq.read_table(tmp_path / "out" / "log.parquet").to_pandas()
    assert log.timestamp.min() == 1_767_226_050_000


def test_one_bad_cell_among_dates_and_orders_is_told_with_its_row(tmp_path):
    dates = {"when": [f"2026-01-{1 + i // 5:02d}" for i in range(100)]}
    dates["when"][7] = "soon"
    with pytest.raises(BadImport, match=r"'soon' is no ISO 8601 date \(row 8\), as 99 of 100 are; mend it, or give"):
        imported(tmp_path, purchases(**dates))
    order = {"columns": {"user": "who", "item": "what", "order": "when"}, "split": "leave_one_out"}
    with pytest.raises(BadImport, match=r"columns\.order 'when': 'soon' is no number \(row 9, .*; an order is a whole"):
        clicks(tmp_path, when=(7, "soon"))(**order)


def test_one_id_that_is_no_whole_number_makes_all_of_them_text_and_is_told(tmp_path):
    found, said = clicks(tmp_path, who=(10, "12.5"))()
    assert found.events == 100 and said == [
        f"warning: {tmp_path}/s.tsv: columns.user 'who': 99 of 100 ids are whole numbers, but '12.5' (row 12, the "
        "header being the first) is not, so all are taken as text; mend it if it is a mistake"
    ]
    assert clicks(tmp_path)()[1] == []


def test_times_far_from_all_others_are_told(tmp_path):
    found, said = clicks(tmp_path, when=(5, "-4"))()
    assert found.events == 100 and said == [
        f"warning: {tmp_path}/s.tsv: columns.time 'when': 1 of 100 times lie outside of the years 1990 to 2099, the "
        "first '-4' (row 7, the header being the first); they are taken as they are: drop such rows by a rule if they "
        "are mistakes"
    ]
    found, said = clicks(tmp_path, when=(5, "-4"))(drop=[{"reason": "no time", "column": "when", "at_most": 0}])
    assert found.events == 99 and found.dropped["no time"] == 1 and said == []


def text_refused(tmp_path, text):
    config = prepare(tmp_path, purchases(), suffix="csv")
    (tmp_path / "s.csv").write_bytes(text)
    with pytest.raises(InputError) as refused:
        import_interactions(config, tmp_path / "out")
    return str(refused.value).removeprefix(f"{tmp_path}/")


def test_what_is_wrong_with_a_table_of_text_is_told_with_its_place(tmp_path):
    head = b"who,what,when\na,b,2026-01-01\n"
    assert text_refused(tmp_path, head + b"1,2\n") == (
        "s.csv, row 3, the header being the first: Expected 3 columns, got 2: 1,2; mend the row"
    )
    assert "s.csv, row 3, " in (told := text_refused(tmp_path, head + b'"1,2,3\n')) and "never closed" in told
    assert (
        text_refused(tmp_path, head + b"M\xfcller,2,3\n")
        == "s.csv, line 3: 'M\ufffdller,2,3' is not UTF-8; save the file as UTF-8"
    )
    assert (
        text_refused(tmp_path, b"who,what,when\n")
        == "s.csv: holds no rows, only the columns who, what, when; give its rows"
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet", "svm"])
def test_a_source_that_is_not_there_is_told_so(tmp_path, suffix):
    with pytest.raises(UnreadableTable, match=rf"a\.{suffix}: does not exist"):
        read_table(tmp_path / f"a.{suffix}")


def test_a_key_that_stands_outside_of_its_section_is_told_which_one(tmp_path):
    with pytest.raises(BadImport, match=r"unknown key \(with the value 'ms'\); write it inside of `columns`"):
        prepare(tmp_path, purchases(), time_unit="ms")
