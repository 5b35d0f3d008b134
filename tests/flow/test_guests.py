"""A shop whose visitors never come back has a model too: one that knows items, requests and histories, but no user."""

import math

import pyarrow.parquet as pq
import pytest

from recsys_kd.data.dataset import Dataset
from recsys_kd.flow.night import run
from recsys_kd.progress import SILENT
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.schema import USER
from recsys_kd.settings import load_recipe
from tests.conftest import quick


@pytest.fixture(scope="module")
def recipe(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guests")
    for file in (shop.folder / "log").rglob("*.parquet"):
        table = pq.read_table(file, partitioning=None).slice(0, 1500)
        at = table.schema.get_field_index("user_id")
        (folder / "log" / file.parent.name).mkdir(parents=True)
        guests = table.set_column(at, "user_id", table["request_id"])
        pq.write_table(guests, folder / "log" / file.parent.name / "part-0.parquet", write_page_checksum=True)
    made = quick(load_recipe(shop.recipe), folder / "night")
    given = made.model_copy(update={"compress": made.compress.model_copy(update={"ratio": 2.0})})
    return given.model_copy(update={"data": given.data.model_copy(update={"path": folder / "log", "min_count": 25})})


def test_a_night_without_known_users_trains_and_serves_finite_scores(recipe):
    night = run(recipe, SILENT)
    data = Dataset.open(next(recipe.work.glob("read-*/rows")))
    assert len(data.keys(USER)) == 0 and len(data.keys("item_id")) > 20
    metrics = night.evaluation.metrics
    assert all(math.isfinite(v.value) for m in ("teacher", "student", "served") for v in metrics[m].values())
    ranker = Ranker.open(night.artifact.path)
    items = night.scored["candidates"]
    one, other = (ranker.score({"user_id": u, "device": "phone", "hour": 3}, items) for u in (1, 999_999))
    assert (one == other).all() and ((one > 0) & (one < 1)).all()
