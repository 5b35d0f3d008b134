"""Columns that are not there, or hold something else, are told all at once and by the recipe's own keys."""

import numpy as np
import pytest

from recsys_kd.data.layout import MissingColumn, WrongColumnType
from recsys_kd.data.log import open_log
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
