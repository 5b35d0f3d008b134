"""Recipes and other YAML: what is taken, and what is refused with which words."""

import datetime as dt
import json

import pytest
import yaml

from recsys_kd.data.interactions_config import BadImport, load_import
from recsys_kd.evaluate.policy import BadPolicy, load_policy
from recsys_kd.settings import (
    BadRecipe,
    DataConfig,
    Recipe,
    Window,
    load_recipe,
    load_yaml,
    milliseconds,
    parse_recipe,
)

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


def recipe_of(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    return load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("start", "end"),
    [("2026-01-01", "2026-02-01 00:00:00"), ("2026-01-01T00:00:00Z", "2026-02-01T01:00+01:00"), ("20260101", "~")],
)
def test_dates_need_no_quotes(tmp_path, start, end):
    window = recipe_of(tmp_path, f"name: shop\ndata: {{path: log, window: {{start: {start}, end: {end}}}}}").data.window
    assert milliseconds(window.start) == 1_767_225_600_000
    assert window.end is None or milliseconds(window.end) == 1_769_904_000_000
    assert (
        DataConfig.model_validate(json.loads(DataConfig(path=tmp_path, window=window).model_dump_json())).window
        == window
    )


def test_dates_of_python_are_taken_too():
    window = Window.model_validate({"start": dt.date(2026, 1, 1), "end": dt.datetime(2026, 1, 1, 12)})
    assert (window.start, window.end) == ("2026-01-01", "2026-01-01T12:00:00")


@pytest.mark.parametrize("written", ["2026-13-45", "'2026-13-45'", "NaT", "''", "yesterday", "2026"])
def test_a_bound_that_is_no_date_is_refused_with_what_to_write(tmp_path, written):
    value = written.strip("'")
    with pytest.raises(BadRecipe, match=rf"data\.window\.end: '{value}' is not a date; write it as 2026-01-31"):
        recipe_of(tmp_path, f"name: shop\ndata: {{path: log, window: {{end: {written}}}}}")


def test_a_window_that_ends_before_it_starts_is_refused_however_it_is_written():
    with pytest.raises(ValueError, match=r"`start` 2026-02-01 is not before `end` 2026-02-01T00:00"):
        Window.model_validate({"start": "2026-02-01", "end": "2026-02-01T00:00"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: shop\ndata:\n  path: a\nname: other", "key 'name' stands in line 1 and again in line 4"),
        ("name: shop\ndata:\n  path: a\n  path: b", "key 'path' stands in line 3 and again in line 4"),
        ("name: shop\ndata: {path: a, path: b}", "key 'path' stands in line 2 and again in line 2"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path, text, words):
    with pytest.raises(BadRecipe, match=rf"r\.yaml: {words}; remove one"):
        recipe_of(tmp_path, text)
    with pytest.raises(BadImport, match=words):
        load_import(tmp_path / "r.yaml")
    with pytest.raises(BadPolicy, match=words):
        load_policy(tmp_path / "r.yaml")


def test_keys_that_are_merged_in_may_be_set_again(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\n")
    assert load_yaml(tmp_path / "x.yaml", "a test", BadRecipe)["c"] == {"x": 3, "y": 4}


def test_a_recipe_is_frozen():
    recipe = Recipe.model_validate(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
