"""The recipe: everything a night needs to know, as frozen values that forbid unknown keys.

`load_recipe` reads YAML and turns every mistake into one `BadRecipe` that names key, value and what to do.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from recsys_kd.settings.base import BadRecipe, Name, StrictConfig
from recsys_kd.settings.compression import CompressConfig
from recsys_kd.settings.data import DataConfig, SplitConfig
from recsys_kd.settings.documents import load_yaml
from recsys_kd.settings.explain import explain
from recsys_kd.settings.gate import AbConfig, EvaluateConfig, GateConfig
from recsys_kd.settings.models import DistilConfig, SoftLabelConfig, StudentConfig, TeacherConfig


class Recipe(StrictConfig):
    """One model's night."""

    name: Name
    seed: int = Field(7, ge=0, le=2**32 - 1)
    threads: int | None = Field(None, ge=1, le=1024)
    store: Path = Path("store")
    """Artifacts, and the embedded registry beside them."""
    registry: str | None = None
    """Instead of the embedded one: `redis://host:port/db` or the path of an SQLite file; RECSYS_KD_REGISTRY wins."""
    work: Path = Path("work")
    """Stages' results, kept to continue an interrupted run."""
    data: DataConfig
    split: SplitConfig = SplitConfig()
    teacher: TeacherConfig = TeacherConfig()
    soft_labels: SoftLabelConfig = SoftLabelConfig()
    student: StudentConfig = StudentConfig()
    distil: DistilConfig = DistilConfig()
    compress: CompressConfig = CompressConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    ab: AbConfig = AbConfig()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _slices_are_categories(self) -> "Recipe":
        known = [f.name for f in self.data.fields if f.kind == "categorical"]
        for name in self.soft_labels.slices:
            if name not in known:
                raise ValueError(f"soft_labels.slices: '{name}' is no categorical field; give any of {known}")
        return self

    @field_validator("registry")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value is not None and "@" in value and urlsplit(value).password:
            raise ValueError("holds a password, and recipes are printed in reports; put the URL in RECSYS_KD_REGISTRY")
        return value


def parse_recipe(data: Any, where: str, base: Path) -> Recipe:
    """Validate a recipe's dict; relative paths are taken from `base`.

    Raises: BadRecipe naming every bad key with its value.
    """
    if not isinstance(data, dict):
        given = "nothing" if data is None else f"a {type(data).__name__}"
        raise BadRecipe(
            f"{where}: (the whole file): got {given}; write a mapping with at least the keys `name` and `data`"
        )
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise BadRecipe(explain(error, where, Recipe)) from None
    anchored = {
        "data": recipe.data.model_copy(
            update={
                "path": base / recipe.data.path,
                "catalogue": recipe.data.catalogue and base / recipe.data.catalogue,
            }
        ),
        "store": base / recipe.store,
        "work": base / recipe.work,
    }
    return recipe.model_copy(update=anchored)


def load_recipe(path: Path) -> Recipe:
    """Read a YAML recipe. Raises: BadRecipe."""
    return parse_recipe(load_yaml(path, "a recipe", BadRecipe), str(path), path.resolve().parent)
