"""What the README shows is run."""

import re
from pathlib import Path

import yaml

from recsys_kd.data.interactions_config import ImportConfig
from recsys_kd.settings import Recipe
from tests.served import artifact

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_recipe_is_valid():
    recipe, purchases = blocks("yaml")
    assert Recipe.model_validate(yaml.safe_load(recipe)).name == "my-shop"
    assert ImportConfig.model_validate(yaml.safe_load(purchases)).columns.user == "customer"


def test_the_serving_example_runs(dataset, tmp_path):
    (code,) = blocks("python")
    names = {"artifact": artifact(dataset, tmp_path).path}
    exec(code, names)
    assert names["probabilities"].shape == (3,) and len(names["best"]) == 2


def test_every_make_target_and_command_it_names_exists():
    root = Path(__file__).resolve().parents[1]
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", README)):
        assert f"\n{target}:" in makefile
    commands = (root / "recsys_kd" / "cli" / "main.py").read_text() + "def registry("
    for command in set(re.findall(r"recsys-kd (\w+)", README)):
        assert f"def {command}(" in commands or f'command("{command}")' in commands
