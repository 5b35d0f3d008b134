import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from recsys_kd.cli.main import app
from recsys_kd.data.layout import MissingColumn
from recsys_kd.evaluate.inference import BadShares
from recsys_kd.evaluate.inspect import MixedRequest
from recsys_kd.flow.ab import compare_log
from recsys_kd.settings import BadRecipe, load_recipe
from tests.flow.test_ab import columns, recipe, write

GROUPS = {"column": "arm", "shares": {"a": 1, "b": 1}}


def log(folder, share, leak=0):
    """Write a log of 100 users; the arms of the first `leak` rows are turned."""
    user = columns()["request_id"] // 4
    arm = np.where(user % 10 < 10 * share, "a", "b")
    arm[:leak] = np.where(arm[:leak] == "a", "b", "a")
    return write(folder, user_id=user, arm=pa.array(arm))


@pytest.mark.parametrize(
    ("share", "words"),
    # Chi-square 0, and 36: 30^2 / 50 twice.
    [
        (0.5, "sample ratio holds: a 50, b 50 users, p 1"),
        (0.8, "sample ratio is broken: a 80, b 20 users, p 2e-09; groups differ"),
    ],
)
def test_groups_of_a_live_experiment_are_held_to_their_shares(tmp_path, share, words):
    found = compare_log(log(tmp_path, share), "old", ["new"], recipe(tmp_path, groups=GROUPS))
    broken = found.groups.broken
    assert found.groups.sentence.startswith(words) and broken == (share != 0.5)
    assert [w for w in found.comparison.warnings if "sample ratio" in w] == [found.groups.sentence] * broken
    head = "No decision: the sample ratio is broken, look at assignment and logging first. Without that: Use new: "
    assert found.comparison.headline.startswith(head if broken else "Use new: ")
    assert found.comparison.outcomes == {"new": "undecided" if broken else "better"}
    assert {"arm a", "arm b"} <= {s.slice for s in found.comparison.slices}


def test_users_of_several_groups_break_the_split_and_json_tells_it(tmp_path):
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log(tmp_path, 0.5, leak=1)), "--json"]
    done = CliRunner().invoke(app, [*given, "--recipe", str(recipe(tmp_path, groups=GROUPS))])
    found = json.loads(done.stdout)
    assert found["groups"]["in_several"] == 1 and sum(found["groups"]["counts"].values()) == 101
    assert "1 users stand in several groups" in found["warnings"][0]


def test_groups_that_are_not_in_the_log_are_named(tmp_path):
    with pytest.raises(MissingColumn, match=r"ab.groups.column: no column 'arm' in the log; it has user_id"):
        compare_log(write(tmp_path), "old", ["new"], recipe(tmp_path, groups=GROUPS))
    with pytest.raises(BadShares, match=r"the groups \['a', 'b'\], shares are given for \['a', 'c'\]"):
        shares = {"column": "arm", "shares": {"a": 1, "c": 1}}
        compare_log(log(tmp_path, 0.5), "old", ["new"], recipe(tmp_path, groups=shares))


def test_a_split_that_holds_is_told_and_is_no_warning(tmp_path):
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log(tmp_path, 0.5))]
    shown = CliRunner().invoke(app, [*given, "--recipe", str(recipe(tmp_path, groups=GROUPS))]).stdout.splitlines()
    assert "sample ratio holds: a 50, b 50 users, p 1" in shown


def test_groups_may_be_numbers_and_what_is_wrong_with_shares_is_told_with_file_and_key(tmp_path):
    numbered = {"column": "arm", "shares": {0: 1, 1: 3}}
    assert load_recipe(recipe(tmp_path, groups=numbered)).ab.groups.shares == {"0": 1.0, "1": 3.0}
    for shares, words in [
        ({"a": 1, "b": -1}, r"recipe.yaml: ab.groups.shares.b: got -1; give a number, greater than 0"),
        ({"a": 1}, r"recipe.yaml: ab.groups.shares: got \{'a': 1\}; give a mapping .*, with at least 2 in it"),
    ]:
        with pytest.raises(BadRecipe, match=words):
            load_recipe(recipe(tmp_path, groups={"column": "arm", "shares": shares}))


def test_columns_of_the_recipe_that_are_nowhere_are_named(tmp_path):
    pq.write_table(pa.table({"item_id": np.arange(50), "brand": ["x"] * 50}), tmp_path / "items.parquet")
    given = write(tmp_path)
    for ab in ({"slices": ["nosuch"]}, {"price": "nosuch"}):
        path = recipe(tmp_path, **ab)
        asked = yaml.safe_load(path.read_text())
        asked["data"]["catalogue"] = "items.parquet"
        path.write_text(yaml.safe_dump(asked))
        with pytest.raises(
            MissingColumn, match=r"no column 'nosuch' in the log .*, nor in the catalogue .*has item_id, bra"
        ):
            compare_log(given, "old", ["new"], path)


def test_more_replicates_than_fit_into_memory_are_refused(tmp_path):
    with pytest.raises(
        BadRecipe, match=r"ab.replicates: got 100000000; give a whole number, at least 100, at most 10,000"
    ):
        load_recipe(recipe(tmp_path, replicates=100_000_000))


def test_requests_of_several_users_are_told_by_the_logs_own_ids(tmp_path):
    mixed = columns()["request_id"] + 7_000_000
    user = np.where(np.arange(2400) == 13, 555, columns()["user_id"])
    words = (
        r"request_id: 1 requests have rows of several users, such as request 7000002 of users \d+ and 555; a request"
    )
    with pytest.raises(MixedRequest, match=words):
        compare_log(write(tmp_path, request_id=mixed, user_id=user), "old", ["new"])


@pytest.mark.filterwarnings("error")
def test_a_score_beyond_float32_is_a_bad_row_and_warns_of_nothing_else(tmp_path):
    score = np.where(np.arange(2400) == 9, 3.2e300, columns()["old"].astype(np.float64))
    found = compare_log(write(tmp_path, old=score), "old", ["new"]).comparison
    assert found.rows == 2399 and any("the first is 3.2e+300 in row 9" in w for w in found.warnings)
