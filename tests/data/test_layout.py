"""Columns that are not there, or hold something else, are told all at once and by the recipe's own keys."""

import numpy as np
import pytest

from recsys_kd.data.layout import MissingColumn, WrongColumnType
from recsys_kd.data.log import open_log
from recsys_kd.data.roles import LabelLeaks, SharedColumn
from recsys_kd.settings import SplitConfig
from tests.data.test_read import SPLIT, config, log, write

PRICE = {"name": "price", "side": "item", "kind": "dense"}
DEVICE = {"name": "device", "side": "request", "kind": "categorical", "column": "dev"}


def test_all_missing_columns_are_told_at_once_with_the_files_they_were_looked_for_in(tmp_path):
    path = write(tmp_path / "log.parquet", log())
    items = write(tmp_path / "items.parquet", {"sku": np.arange(100, 109), "brand": ["x"] * 9})
    wanted = config(path, {"label": "clicked"}, catalogue=items, fields=[PRICE, DEVICE])
    with pytest.raises(MissingColumn) as caught:
        open_log(wanted, SplitConfig(column="part"), {"teacher": "score"})
    assert str(caught.value).split("; ") == [
        "data.columns.label: no column 'clicked' in the log",
        "data.fields[0]: no column 'price' in catalogue or log",
        "data.fields[1]: no column 'dev' in the log",
        "teacher.column: no column 'score' in the log",
        "split.column: no column 'part' in the log",
        "data.columns.item_id: no column 'item_id' in the catalogue, which is keyed by it",
        f"the log ({path}) has the columns user_id, item_id, timestamp, label, request_id",
        f"the catalogue ({items}) has the columns sku, brand",
        "name a column that is there, or write the missing one",
    ]


def test_columns_of_a_wrong_type_are_told_by_the_recipes_keys(tmp_path):
    path = write(tmp_path / "log.parquet", log(part=np.arange(400), score=[[1.0]] * 400))
    with pytest.raises(WrongColumnType, match=r"^split\.column: column 'part' is int64; .*train, validation and test$"):
        open_log(config(path), SplitConfig(column="part"))
    with pytest.raises(WrongColumnType, match=r"^teacher\.column: column 'score' is list<.*>; it must hold numbers$"):
        open_log(config(path), SPLIT, {"teacher": "score"})
    with pytest.raises(WrongColumnType, match=r"^data\.columns\.user_id: column 'score' is list"):
        open_log(config(path, {"user_id": "score"}), SPLIT)


@pytest.mark.parametrize("side", ["candidate", "request", "item"])
def test_a_field_that_reads_the_label_is_refused(tmp_path, side):
    path = write(tmp_path / "log.parquet", log())
    leak = {"name": "leak", "side": side, "kind": "dense", "column": "label"}
    with pytest.raises(LabelLeaks) as caught:
        open_log(config(path, fields=[leak]), SPLIT)
    assert str(caught.value) == (
        "data.fields[0]: field 'leak' would be column 'label', which is the label (data.columns.label): models would "
        "be told what they are to predict; remove the field, or name another column as the label"
    )
    assert caught.value.exit_code == 2


def test_the_label_is_no_teachers_score(tmp_path):
    path = write(tmp_path / "log.parquet", log())
    with pytest.raises(LabelLeaks, match=r"teacher\.column: the teacher's scores would be column 'label', which is"):
        open_log(config(path), SPLIT, {"teacher": "label"})


def test_a_catalogues_column_of_the_labels_name_is_another_column(tmp_path):
    path = write(tmp_path / "log.parquet", log())
    items = write(tmp_path / "items.parquet", {"item_id": np.arange(100, 109), "label": np.arange(9.0)})
    field = {"name": "size", "side": "item", "kind": "dense", "column": "label"}
    assert open_log(config(path, catalogue=items, fields=[field]), SPLIT).layout.item_fields[0].name == "size"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"user_id": "item_id"}, "data.columns.item_id: column 'item_id' is data.columns.user_id too"),
        ({"label": "item_id"}, "data.columns.label: column 'item_id' is data.columns.item_id too"),
        ({"timestamp": "user_id"}, "data.columns.timestamp: column 'user_id' is data.columns.user_id too"),
        ({"weight": "label"}, "data.columns.weight: column 'label' is data.columns.label too"),
        ({"request_id": "item_id"}, "data.columns.request_id: column 'item_id' is data.columns.item_id too"),
    ],
)
def test_one_column_for_two_roles_is_refused(tmp_path, columns, words):
    path = write(tmp_path / "log.parquet", log())
    with pytest.raises(SharedColumn) as caught:
        open_log(config(path, columns), SPLIT)
    assert str(caught.value) == f"{words}, and one column can't be both; name another column for one of them"


def test_a_visit_may_be_both_the_user_and_the_request(tmp_path):
    path = write(tmp_path / "log.parquet", log())
    assert open_log(config(path, {"request_id": "user_id"}), SPLIT).layout.columns["request_id"] == "user_id"
