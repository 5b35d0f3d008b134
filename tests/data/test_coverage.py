"""A catalogue of other ids than the log's is refused; one that lacks some items is told of."""

import numpy as np
import pytest

from recsys_kd.data.coverage import ForeignCatalogue
from recsys_kd.flow.dry_run import plan
from recsys_kd.settings import parse_recipe
from tests.data.test_read import log, reading, write

PRICE = {"name": "price", "side": "item", "kind": "dense"}


def both(tmp_path, columns, items):
    """Return what reading and planning do with a log and a catalogue."""
    path = write(tmp_path / "items.parquet", {"item_id": items, "price": np.arange(len(items)) * 1.0})
    data = {"path": str(write(tmp_path / "l.parquet", columns)), "catalogue": str(path), "fields": [PRICE]}
    recipe = parse_recipe({"name": "s", "data": data, "gate": {"teacher_margin": 0.2}}, "r.yaml", tmp_path)
    return (lambda: reading(tmp_path, columns, catalogue=path, fields=[PRICE])), (lambda: plan(recipe)), path


@pytest.mark.parametrize("text", [False, True])
def test_a_catalogue_without_any_item_of_the_log_is_refused_with_an_id_of_each(tmp_path, text):
    columns = log()
    columns["item_id"][0], shifted = 100, np.arange(100, 109) + 1_000_000
    if text:
        columns["item_id"], shifted = [f"p{i}" for i in columns["item_id"]], [f"q{i}" for i in shifted]
    read, foretell, path = both(tmp_path, columns, shifted)
    one, other = ("'p100'", "'q1000100'") if text else ("100", "1000100")
    for act in (read, foretell):
        with pytest.raises(ForeignCatalogue) as caught:
            act()
        assert str(caught.value) == (
            f"data.catalogue: {path} has 0 of the 9 items of the log: 'item_id' is such as {one} in the log and "
            f"{other} in the catalogue; write it with the ids of the log, or leave data.catalogue out"
        )
        assert caught.value.exit_code == 2


def test_items_that_only_the_later_days_hold_are_counted_as_missing_too(tmp_path):
    columns = log()
    columns["item_id"][-3:] = [900, 900, 901]  # of the test day: training never saw them
    read, foretell, _ = both(tmp_path, columns, np.arange(100, 108))
    assert read().counts.missing_items == 3  # 108, 900 and 901
    told = (
        "data.catalogue: 3 of 11 items of the log (27.3%) are not in it: they are known by their id and what the log "
        "says of them"
    )
    assert told in foretell().warnings


def test_a_catalogue_that_has_them_all_is_not_warned_of(tmp_path):
    read, foretell, _ = both(tmp_path, log(), np.arange(100, 120))
    assert read().counts.missing_items == 0 and not [w for w in foretell().warnings if "data.catalogue" in w]


def test_one_item_in_a_hundred_is_enough_to_go_on(tmp_path):
    columns = log(item_id=np.arange(400) % 100)
    read, foretell, _ = both(tmp_path, columns, [99, 500, 501])
    assert read().counts.missing_items == 99 and any("99 of 100 items" in w for w in foretell().warnings)
    columns = log(item_id=np.arange(400) % 101)
    _, foretell, _ = both(tmp_path, columns, [99, 500, 501])
    with pytest.raises(ForeignCatalogue, match="has 1 of the 101 items"):
        foretell()


def test_the_example_is_of_a_file_that_can_be_read(tmp_path):
    (tmp_path / "log").mkdir()
    bad = write(tmp_path / "log" / "a.parquet", log())
    held = bytearray(bad.read_bytes())
    held[200] ^= 255
    bad.write_bytes(held)
    write(tmp_path / "log" / "b.parquet", log(seed=1, item_id=[777] * 400))
    items = write(tmp_path / "items.parquet", {"item_id": [5], "price": [1.0]})
    data = {"path": str(tmp_path / "log"), "catalogue": str(items), "fields": [PRICE], "on_bad_file": "exclude"}
    recipe = parse_recipe({"name": "s", "data": data}, "r.yaml", tmp_path)
    with pytest.raises(
        ForeignCatalogue, match=r"0 of the 1 items of the log: 'item_id' is such as 777 in the log and 5 "
    ):
        plan(recipe)
