"""The logs that benchmarks of quality use: the synthetic shop, and the real ones that lie beside the project.

BENCH_SETS names sets; BENCH_ROWS is the shop's log rows; BENCH_SEEDS how many seeds, the recipe's being the first.
BENCH_WORK names a folder that keeps imported logs and finished stages, so that one benchmark goes on where another, or
an interrupted one, has stopped; without it all is made anew in a folder that goes.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_kd.cli.display import PlainProgress
from recsys_kd.data.interactions import import_interactions
from recsys_kd.data.interactions_config import load_import
from recsys_kd.data.synth import synthesize
from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.settings import Recipe, load_recipe

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
RECIPES = Path(__file__).resolve().parent / "recipes"
REAL = ("online_retail", "beauty", "ml1m")
ROWS = int(os.environ.get("BENCH_ROWS", "300000"))
SEEDS = int(os.environ.get("BENCH_SEEDS", "1"))


def asked(default: str) -> list[str]:
    """Return the sets that BENCH_SETS names, the real ones only where their data is there."""
    names = os.environ.get("BENCH_SETS", default).split(",")
    if missing := [n for n in names if n in REAL and not SHARED.exists()]:
        print(f"{', '.join(missing)}: skipped, the folder of real data is not beside the project")
    return [n for n in names if n not in missing]


@contextmanager
def recipe_of(name: str) -> Iterator[Recipe]:
    """Yield the recipe of a set, its log made or imported."""
    if kept := os.environ.get("BENCH_WORK"):
        yield _made(name, Path(kept) / name)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield _made(name, Path(folder))


def _made(name: str, folder: Path) -> Recipe:
    recipe = folder / "recipe.yaml"
    if not recipe.exists():
        if name == "shop":
            recipe = synthesize(ShopConfig(rows=ROWS, users=3000, items=6000), folder, PlainProgress()).recipe
        else:
            config = load_import(RECIPES / f"{name}.import.yaml", SHARED)
            recipe = import_interactions(config, folder, PlainProgress()).recipe
    return load_recipe(recipe)


def seeds_of(recipe: Recipe) -> list[Recipe]:
    """Return a recipe once for every seed."""
    return [recipe.model_copy(update={"seed": recipe.seed + i}) for i in range(SEEDS)]
