"""The plan: bounds that hold, and a time that is near the truth."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_kd.data.bounds import bounds
from recsys_kd.data.encode import encode
from recsys_kd.data.split import EmptySplit
from recsys_kd.data.synth import RECIPE
from recsys_kd.data.vocabulary import EmptyVocabulary
from recsys_kd.flow.dry_run import plan, train_share
from recsys_kd.flow.estimate import passes, seconds, student_row_seconds, teacher_row_seconds
from recsys_kd.models.teacher import table_bytes
from recsys_kd.settings import load_recipe, parse_recipe
from tests.data.test_read import log, write


def with_data(recipe, **change):
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=change)})


def test_every_table_is_listed_with_a_bound_that_holds(shop, dataset):
    recipe = load_recipe(shop.recipe)
    found = plan(recipe)
    assert set(found.tables) == set(dataset.schema.vocabularies)
    for name, vocabulary in dataset.schema.vocabularies.items():
        assert vocabulary.size <= found.tables[name]["rows_at_most"] <= 20 * vocabulary.size
    held = sum(t["teacher_bytes_at_most"] for t in found.tables.values())
    assert table_bytes(dataset.schema, recipe.teacher) <= held
    assert [f["table"] for f in found.fields] == [
        "user_id", "item_id", "device", "hour", "item_id", "category", "brand", None,
    ]  # fmt: skip


def test_item_tables_without_a_catalogue_are_bound_by_the_logs_items(tmp_path):
    columns = log(shelf=[f"s{i % 7}" for i in range(400)], tags=[["a", "b"]] * 400, empty=pa.nulls(400, pa.string()))
    path = write(tmp_path / "log.parquet", columns)
    fields = [
        {"name": "shelf", "side": "item", "kind": "categorical"},
        {"name": "tags", "side": "item", "kind": "bag"},
        {"name": "empty", "side": "request", "kind": "categorical"},
        {"name": "seen", "side": "request", "kind": "bag", "vocabulary": "item_id", "column": "seen"},
    ]
    pq.write_table(pq.read_table(path).append_column("seen", [[[100, 101]] * 400]), path, write_page_checksum=True)
    recipe = parse_recipe({"name": "shop", "data": {"path": str(path), "fields": fields}}, "r.yaml", tmp_path)
    found = plan(recipe)
    rows = {name: table["rows_at_most"] for name, table in found.tables.items()}
    # 8 users and 9 items by least and greatest id; a row each and the fallback's.
    assert rows == {"user_id": 9, "item_id": 10, "shelf": 8, "tags": 3, "empty": 1}
    data = encode(recipe.data, recipe.split, tmp_path / "out")
    assert {name: v.size for name, v in data.schema.vocabularies.items()} == rows
    assert "at most 10 rows, at most 2,560 bytes in the teacher" in "\n".join(found.lines())


def test_a_count_that_no_item_can_reach_is_refused_by_the_plan(shop):
    with pytest.raises(EmptyVocabulary, match=r"data\.min_count: 99,999: no item can occur"):
        plan(with_data(load_recipe(shop.recipe), min_count=99_999))


def test_days_that_leave_nothing_to_train_on_are_refused_by_the_plan(shop):
    recipe = load_recipe(shop.recipe)
    longer = recipe.model_copy(update={"split": recipe.split.model_copy(update={"test_days": 400.0})})
    with pytest.raises(EmptySplit, match=r"no rows for 'train': the log runs from .* split\.test_days 400; choose"):
        plan(longer)


def test_files_without_rows_are_told(shop, tmp_path):
    (tmp_path / "log").mkdir()
    part = next((shop.folder / "log").rglob("*.parquet"))
    table = pq.read_table(part, partitioning=None)
    pq.write_table(table, tmp_path / "log" / "a.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "log" / "b.parquet")
    recipe = with_data(load_recipe(shop.recipe), path=tmp_path / "log")
    hours = {"validation_days": 0.1, "test_days": 0.1}  # of the one day that is left
    found = plan(recipe.model_copy(update={"split": recipe.split.model_copy(update=hours)}))
    words = "file(s), 1 more without rows, 0 excluded, 1 without page checksums"
    assert found.empty_files == 1 and f"{table.num_rows:,} rows in 1 {words}" in found.lines()[0]
    assert found.lines()[-1].startswith("estimate: ")


def test_the_demos_night_is_foretold_within_a_third(tmp_path):
    """It took 241 s, and 268 s on a slower day."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    found = seconds(recipe, 1_000_020, 11 / 14)
    assert 200 < sum(found.values()) < 320
    assert found["teachers"] == pytest.approx(102, rel=0.2)
    assert found["student and control"] == pytest.approx(65, rel=0.2)
    assert found["compression"] == pytest.approx(2 * (16 + 10.5), rel=0.2)
    assert found["evaluation"] == pytest.approx(18, rel=0.1) and found["read"] == pytest.approx(2.7, rel=0.05)


def test_rows_cost_their_arithmetic_and_their_lookups(tmp_path):
    recipe = parse_recipe({"name": "shop", "data": {"path": "log"}}, "r.yaml", tmp_path)
    # 128 inputs: two cross layers of 2 x 128 x 64, an MLP of 256, 128 and 1; times 6 over 75e9, and two lookups.
    adds = 2 * 2 * 128 * 64 + 128 * 256 + 256 * 128 + 128
    assert teacher_row_seconds(recipe) == pytest.approx(6 * adds / 75e9 + 1.8e-6)
    assert student_row_seconds(recipe) == pytest.approx(6 * (128 * 64 + 64 * 32 + 32) / 75e9 + 1.8e-6)
    wide = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"width": 128})})
    assert 1.5 < teacher_row_seconds(wide) / teacher_row_seconds(recipe) < 2
    logged = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"kind": "precomputed"})})
    assert (passes(recipe), passes(logged), seconds(logged, 1000, 0.5)["teachers"]) == (3.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["s", "timestamp", "date", "text"])
def test_the_days_of_a_log_are_known_from_its_footers(tmp_path, kind):
    stamp = (np.arange(400) * 86_400 * 10) // 399 + 1_700_000_000 // 86_400 * 86_400
    columns = log(timestamp={
        "s": stamp,
        "timestamp": pa.array(stamp * 1000, pa.timestamp("ms")),
        "date": pa.array(stamp // 86_400, pa.int32()).cast(pa.date32()),
        "text": pa.array(stamp * 1000, pa.timestamp("ms")).cast(pa.string()),
    }[kind])  # fmt: skip
    recipe = parse_recipe(
        {"name": "s", "data": {"path": str(write(tmp_path / "l.parquet", columns))}}, "r.yaml", tmp_path
    )
    path = recipe.data.path
    stamps = bounds([path], path, ["timestamp"])["timestamp"]
    assert train_share(recipe, pq.read_schema(path).field("timestamp").type, stamps) == pytest.approx(0.8)
