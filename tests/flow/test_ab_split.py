import json

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from recsys_kd.cli.main import app
from recsys_kd.data.layout import MissingColumn
from recsys_kd.evaluate.inference import BadShares
from recsys_kd.flow.ab import compare_log
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
    assert any(w.startswith(words) for w in found.comparison.warnings)
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
    with pytest.raises(BadShares, match=r"groups \['a', 'b'\] and shares for \['a', 'c'\]"):
        shares = {"column": "arm", "shares": {"a": 1, "c": 1}}
        compare_log(log(tmp_path, 0.5), "old", ["new"], recipe(tmp_path, groups=shares))
