"""Rows of one request agree on their user and on what is the request's own, or that is told."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_kd.data.counts import Counts, TooManyBadRows
from recsys_kd.data.files import NoChecksums
from recsys_kd.data.items import BadCatalogue
from recsys_kd.flow.dry_run import plan
from recsys_kd.settings import parse_recipe
from tests.data.test_read import log, reading, write

FIELDS = [
    {"name": "device", "side": "request", "kind": "categorical"},
    {"name": "hour", "side": "request", "kind": "dense"},
    {"name": "place", "side": "request", "kind": "vector", "dim": 2},
    {"name": "slot", "side": "candidate", "kind": "categorical"},
]


def lists(**change):
    """Return a log of 100 requests of 4 rows each, all of which agree but for their slots."""
    request = np.arange(400) // 4
    columns = log(request_id=request, user_id=request % 8, item_id=100 + np.arange(400) % 9, slot=np.arange(400) % 4)
    columns["timestamp"] = columns["timestamp"][request * 4]
    columns |= {"device": [f"d{i % 3}" for i in request], "hour": request % 24 * 1.0}
    return {**columns, "place": [[float(i), 1.0] for i in request], **change}


def test_requests_that_agree_are_counted_and_nothing_is_told(tmp_path):
    counts = reading(tmp_path, lists(), fields=FIELDS).counts
    assert (counts.requests, counts.disagreeing, counts.notes()) == (100, {}, [])


def test_requests_with_several_values_of_their_own_fields_are_told(tmp_path):
    columns = lists()
    columns["device"][5] = columns["device"][6] = "d9"  # both in request 1
    columns["device"][399], columns["hour"][9], columns["place"][14] = "d9", 99.0, [3.0, 2.0]
    counts = reading(tmp_path, columns, fields=FIELDS).counts
    assert counts.disagreeing == {"device": 2, "hour": 1, "place": 1}
    assert counts.notes()[0] == (
        "field 'device' is to be the request's own, yet 2 of 100 requests have several values of it, and one is given "
        "when it is served. If it depends on the item too, give it `side: candidate`; if requests are told apart by "
        "another column, name it as data.columns.request_id"
    )
    assert Counts.from_json(counts.to_json()) == counts


def test_one_request_of_many_users_is_told(tmp_path):
    counts = reading(tmp_path, lists(request_id=np.zeros(400, int))).counts
    assert (counts.requests, counts.disagreeing) == (1, {"user": 1})
    assert counts.notes() == [
        "data.columns.request_id: 1 of 1 requests have several users, and a request is one list shown to one user, by "
        "which lists are measured: is the column meant?"
    ]


@pytest.mark.parametrize(("request_id", "rows"), [(np.zeros(400, int), 99), (np.arange(400) // 8, 50), (None, 0)])
def test_requests_of_several_users_are_told_by_the_plan(tmp_path, request_id, rows):
    columns = lists(**({} if request_id is None else {"request_id": request_id}))
    data = {"path": str(write(tmp_path / "log.parquet", columns)), "columns": {"request_id": "request_id"}}
    recipe = parse_recipe({"name": "s", "data": data, "gate": {"teacher_margin": 0.2}}, "r.yaml", tmp_path)
    told = [line for line in plan(recipe).warnings if line.startswith("data.columns.request_id: ")]
    assert told == [
        f"data.columns.request_id: {rows} rows follow one of the same request and of another user, and a request is "
        "one list shown to one user, by which lists are measured: is the column meant?"
    ] * (rows > 0)


@pytest.mark.parametrize("name", ["user_id", "item_id", "request_id"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_a_blank_id_is_none(tmp_path, name, dictionary):
    ids = [f"x{i % 9}" for i in range(400)]
    ids[3], ids[7] = "", " \t"
    array = pa.array(ids).dictionary_encode() if dictionary else pa.array(ids)
    data = reading(tmp_path, log(**{name: array}), max_quarantine=0.01)
    assert dict(data.counts.quarantined) == {"null_key": 2} and data.counts.used == 398
    with pytest.raises(TooManyBadRows, match=rf"column '{name}', null_key, 2 rows, the first is '' in row 3"):
        reading(tmp_path, log(**{name: array}))


def test_a_blank_item_of_the_catalogue_is_none(tmp_path):
    columns = log(item_id=[f"p{i % 9}" for i in range(400)])
    items = {"item_id": [*(f"p{i}" for i in range(9)), "  "], "price": np.arange(10.0)}
    price = {"name": "price", "side": "item", "kind": "dense"}
    with pytest.raises(BadCatalogue, match=r"1 rows have no 'item_id'; remove them"):
        reading(tmp_path, columns, catalogue=write(tmp_path / "items.parquet", items), fields=[price])


def test_a_catalogue_without_checksums_is_told_or_refused(tmp_path):
    items = {"item_id": np.arange(100, 109), "price": np.arange(9.0)}
    path = write(tmp_path / "items.parquet", items, checksums=False)
    more = {"catalogue": str(path), "fields": [{"name": "price", "side": "item", "kind": "dense"}]}
    told = "data.catalogue has no page checksums: flipped bytes would go unseen"
    assert reading(tmp_path, log(), **more).counts.notes() == [told]
    data = {"path": str(tmp_path / "log.parquet"), **more}
    recipe = parse_recipe({"name": "s", "data": data, "gate": {"teacher_margin": 0.2}}, "r.yaml", tmp_path)
    assert plan(recipe).warnings[0] == f"{told}; write it with page checksums"
    with pytest.raises(NoChecksums, match=r"items\.parquet: has no page checksums"):
        reading(tmp_path, log(), **more, require_checksums=True)
    write(path, items)
    assert reading(tmp_path, log(), **more, require_checksums=True).counts.notes() == []
