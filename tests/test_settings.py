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
        ({"extra": 1}, ["r.yaml: extra: unknown key (with the value 1); remove it; known here are: name, seed"]),
        ({"compres": {"ratio": 2}}, ["r.yaml: compres: unknown key (with the value {'ratio': 2}); write 'compress'"]),
        ({"seed": "x"}, ["seed", "'x'"]),
        ({"data": {"path": "log", "colums": {}}}, ["data.colums", "unknown key", "write 'columns'"]),
        ({"compress": {"ratio": 20, "hot_rows": 0.2}}, ["compress", "hot_rows", "within a budget", "keep_rows"]),
        ({"compress": {"ratio": 20, "bytes": "1MB"}}, ["compress", "got `ratio: 20.0`, `bytes: 1MB`", "not several"]),
        ({"student": {"hidden": []}}, ["student.hidden"]),
        ({"data": {"path": "x", "fields": [{"name": "v", "side": "item", "kind": "vector"}]}}, ["give its length"]),
        ({"distil": {"weight": 0.5}}, ["distil", "write `losses: {soft_bce: 0.5}`"]),
        (
            {"distil": {"losses": {"hinge": 1.0}}},
            ["distil.losses.hinge: unknown key; remove it; known here are: soft_bce, "],
        ),
        ({"distil": {"losses": {}, "rounds": 2}}, ["distil", "rounds: got 2", "learn nothing of them"]),
        ({"distil": {"assistant_width": 8}}, ["distil", "assistant_width: got 8 with one round"]),
        ({"distil": {"losses": {"listwise": 0}}}, ["distil.losses.listwise: got 0; give a number, greater than 0"]),
        ({"seed": -1}, ["seed: got -1; give a whole number, at least 0"]),
        (
            {"evaluate": {"k": []}},
            ["evaluate.k: got []; give a list, each: a whole number, at least 1, with at least 1 in it"],
        ),
        ({"evaluate": {"k": [0]}}, ["evaluate.k[0]: got 0; give a whole number, at least 1"]),
        ({"student": {"hidden": [0]}}, ["student.hidden[0]: got 0; give a whole number, at least 1"]),
        ({"teacher": {"hidden": [0]}}, ["teacher.hidden[0]: got 0; give a whole number, at least 1"]),
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


@pytest.mark.parametrize(
    "change",
    [
        {"seed": True},
        {"student": {"hidden": [64, True]}},
        {"compress": {"bytes": True}},
        {"compress": {"ratio": float("inf")}},
        {"ab": {"groups": {"column": "arm", "shares": {"a": True, "b": 1}}}},
        {"ab": {"decide": {"auc": {"not_worse": True}}}},
        {"split": {"test_days": float("inf")}},
    ],
)
def test_true_and_infinity_are_no_numbers(change, tmp_path):
    with pytest.raises(BadRecipe, match=r"got (true|inf|\[64, True\]|\{'a': True, 'b': 1\}); give "):
        parse_recipe({**GOOD, **change}, "r.yaml", tmp_path)
    assert parse_recipe({**GOOD, "teacher": {"bag": True}}, "r.yaml", tmp_path).teacher.bag


def test_every_fault_is_one_line_in_our_words(tmp_path):
    fields = [{"name": "a b", "side": "shop", "kind": "bag"}, {"side": "item"}]
    bad = {"name": True, "data": {"path": 3, "fields": fields}, "compress": {"bytes": [1], "bits": [5]}, 5: 6}
    with pytest.raises(BadRecipe) as error:
        parse_recipe(bad, "r.yaml", tmp_path)
    name = "text, letters, digits, `_`, `.` and `-`, 64 at most"
    keys = ", ".join(Recipe.model_fields)
    assert str(error.value).splitlines() == [
        f"r.yaml: name: got true; give {name}",
        "r.yaml: data.path: got 3; give a path",
        f"r.yaml: data.fields[0].name: got 'a b'; give {name}",
        "r.yaml: data.fields[0].side: got 'shop'; give one of request, item, candidate",
        f"r.yaml: data.fields[1].name: is missing; give {name}",
        "r.yaml: data.fields[1].kind: is missing; give one of categorical, bag, dense, vector",
        "r.yaml: compress.bytes: got [1]; give text or a whole number",
        "r.yaml: compress.bits[0]: got 5; give one of 4, 8",
        f"r.yaml: 5: unknown key; remove it; known here are: {keys}",
    ]


def test_a_password_is_not_repeated_by_the_message_that_refuses_it(tmp_path):
    with pytest.raises(BadRecipe, match="put the URL in RECSYS_KD_REGISTRY") as error:
        parse_recipe({**GOOD, "registry": "redis://:hunter2@host/0"}, "r.yaml", tmp_path)
    assert "hunter2" not in str(error.value)


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: [")
    with pytest.raises(
        BadRecipe, match=r"r\.yaml: line 1, column 5: not valid YAML .*; mend this line .* close brackets"
    ):
        load_recipe(path)
    path.write_text("")
    with pytest.raises(BadRecipe, match="got nothing; write a mapping with at least the keys `name` and `data`"):
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
