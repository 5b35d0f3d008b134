import pytest
import yaml

from recsys_kd.settings import BadRecipe, Recipe, load_recipe, parse_recipe

GOOD = {"name": "shop", "data": {"path": "log"}}


def test_relative_paths_are_taken_from_the_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(GOOD))
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.data.path == tmp_path / "log" and recipe.store == tmp_path / "store"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": 1}, ["extra", "unknown key"]),
        ({"seed": "x"}, ["seed", "'x'"]),
        ({"data": {"path": "log", "colums": {}}}, ["data.colums", "unknown key"]),
        ({"compress": {"ratio": 20, "bytes": "1MB"}}, ["compress", "not several"]),
        ({"student": {"hidden": []}}, ["student.hidden"]),
        ({"data": {"path": "x", "fields": [{"name": "v", "side": "item", "kind": "vector"}]}}, ["give its length"]),
        ({"distil": {"weight": 0.5}}, ["distil", "write `losses: {soft_bce: 0.5}`"]),
        ({"distil": {"losses": {"hinge": 1.0}}}, ["distil.losses.hinge", "'soft_bce'"]),
        ({"distil": {"losses": {"listwise": 0}}}, ["distil.losses.listwise", "greater than 0"]),
        ({"seed": -1}, ["seed", "greater than or equal to 0"]),
        ({"evaluate": {"k": []}}, ["evaluate.k", "at least 1 item"]),
        ({"evaluate": {"k": [0]}}, ["evaluate.k.0", "greater than or equal to 1"]),
        ({"student": {"hidden": [0]}}, ["student.hidden.0", "greater than or equal to 1"]),
        ({"teacher": {"hidden": [0]}}, ["teacher.hidden.0", "greater than or equal to 1"]),
        (
            {"data": {"path": "x", "fields": [{"name": "tags", "side": "candidate", "kind": "bag"}]}},
            ["'tags' is a bag on the candidate side", "`request` or `item`"],
        ),
        ({"data": {"path": "x", "fields": [{"name": "label", "side": "item", "kind": "dense"}]}}, ["reserved"]),
    ],
)
def test_a_mistake_is_named_with_key_and_value(change, words, tmp_path):
    with pytest.raises(BadRecipe) as error:
        parse_recipe({**GOOD, **change}, "r.yaml", tmp_path)
    for word in words:
        assert word in str(error.value)
    assert error.value.exit_code == 2


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: [")
    with pytest.raises(BadRecipe, match="not valid YAML"):
        load_recipe(path)
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(BadRecipe, match="byte 9 is not UTF-8"):
        load_recipe(path)
    with pytest.raises(BadRecipe, match="can't be read"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_recipe_is_frozen():
    recipe = Recipe.model_validate(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
