"""Small shops that several tests share."""

from pathlib import Path

import pytest

from recsys_kd.data.dataset import Dataset
from recsys_kd.data.encode import encode
from recsys_kd.data.synth import Shop, synthesize
from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.settings import Recipe, StudentConfig, TeacherConfig, load_recipe
from tests import paths  # noqa: F401 - before any test imports a plugin

SMALL = ShopConfig(rows=30_000, days=6, users=150, items=120)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return synthesize(SMALL, tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def dataset(shop: Shop) -> Dataset:
    recipe = load_recipe(shop.recipe)
    return encode(recipe.data, recipe.split, shop.folder / "encoded")


def quick(recipe: Recipe, folder: Path) -> Recipe:
    """Return a recipe that trains in seconds and keeps its results under `folder`."""
    return recipe.model_copy(
        update={
            "store": folder / "store",
            "work": folder / "work",
            "teacher": TeacherConfig(width=16, hidden=(32,), cross_rank=8, epochs=3, batch_size=512),
            "student": StudentConfig(width=4, hidden=(8, 4), epochs=3, batch_size=512),
            "gate": recipe.gate.model_copy(update={"teacher_margin": 0.5, "max_ece": 0.5}),
            "compress": recipe.compress.model_copy(update={"ratio": 4.0}),
        }
    )
