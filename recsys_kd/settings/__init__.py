"""What a recipe may say, by topic; import every name from here.

`load_recipe` reads YAML and turns every mistake into one `BadRecipe` that names key, value and what to do.
"""

from recsys_kd.settings.base import BadRecipe, Fraction, Name, StrictConfig, Units
from recsys_kd.settings.compression import CompressConfig, RecoveryConfig
from recsys_kd.settings.data import (
    SMALLEST_PROPENSITY,
    Columns,
    DataConfig,
    FieldConfig,
    SplitConfig,
    Window,
    milliseconds,
    utc,
)
from recsys_kd.settings.documents import load_yaml
from recsys_kd.settings.explain import explain
from recsys_kd.settings.gate import AbConfig, EvaluateConfig, GateConfig, GroupsConfig, Margin
from recsys_kd.settings.models import (
    OVER_FEATURES,
    OVER_REQUESTS,
    BatchSize,
    DistilConfig,
    LossName,
    SoftLabelConfig,
    StudentConfig,
    TeacherConfig,
)
from recsys_kd.settings.recipe import Recipe, load_recipe, parse_recipe

__all__ = [
    "OVER_FEATURES",
    "OVER_REQUESTS",
    "SMALLEST_PROPENSITY",
    "AbConfig",
    "BadRecipe",
    "BatchSize",
    "Columns",
    "CompressConfig",
    "DataConfig",
    "DistilConfig",
    "EvaluateConfig",
    "FieldConfig",
    "Fraction",
    "GateConfig",
    "GroupsConfig",
    "LossName",
    "Margin",
    "Name",
    "Recipe",
    "RecoveryConfig",
    "SoftLabelConfig",
    "SplitConfig",
    "StrictConfig",
    "StudentConfig",
    "TeacherConfig",
    "Units",
    "Window",
    "explain",
    "load_recipe",
    "load_yaml",
    "milliseconds",
    "parse_recipe",
    "utc",
]
