"""Off-policy values of `recsys-kd ab`: the reward model where the log allows one, and the Open Bandit sample."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recsys_kd.cli.main import app
from recsys_kd.flow.ab import compare_log
from tests.flow.test_ab import columns, write

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
MODELLED = ("DM", "DR", "switch-DR")


def test_a_policy_that_looks_at_nothing_is_valued_by_a_reward_model_too_in_json_and_page(tmp_path):
    log, page = write(tmp_path, new_propensity=np.full(2400, 0.02)), tmp_path / "ab.html"
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log), "--json", "--html", str(page)]
    found = json.loads(CliRunner().invoke(app, given).stdout)["off_policy"]["new"]
    assert {"IPS", "clipped IPS", "SNIPS", *MODELLED} == set(found["estimates"]) == set(found["lift"])
    # A uniform target over 50 items that all clicks depend on by chance: every estimator tells the click rate.
    logged = found["logged"]["value"]
    assert all(found["estimates"][name]["value"] == pytest.approx(logged, abs=0.01) for name in ("SNIPS", *MODELLED))
    assert all(f'<td class="of">{name}' in page.read_text() for name in MODELLED)


def test_where_no_reward_model_is_possible_the_reason_is_told(tmp_path):
    chance = np.random.default_rng(0).uniform(0.001, 0.01, 2400)
    found = compare_log(write(tmp_path, new_propensity=chance), "old", ["new"])
    assert not set(MODELLED) & set(found.policies["new"].estimates)
    reason = "off-policy, new: DM, DR and switch-DR are left out: its chance of one item in one place varies"
    assert any(w.startswith(reason) for w in found.comparison.warnings)


def test_estimates_whose_weights_do_not_average_1_are_marked_everywhere(tmp_path):
    # Every chance is three times the log's: nothing was drawn with it, and lifts of IPS say so much and no more.
    log, page = write(tmp_path, new_propensity=np.full(2400, 0.75)), tmp_path / "ab.html"
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log)]
    shown = CliRunner().invoke(app, [*given, "--html", str(page)]).stdout.splitlines()
    marked = {line.split("  ")[1] for line in shown if line.endswith("weights do not average 1")}
    assert marked == {"IPS", "clipped IPS", "IPS, positions", "IPS, cascade", "IPS, whole list"}
    assert page.read_text().count("(weights do not average 1)") == 5
    assert any("mean 3.000 (should be 1)" in line for line in shown)
    found = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["off_policy"]
    assert found["new, whole lists"]["off"] == ["IPS, positions", "IPS, cascade", "IPS, whole list"]


def test_a_policy_with_no_chance_of_anything_shown_has_no_value_and_the_reason_is_told(tmp_path):
    found = compare_log(write(tmp_path, new_propensity=np.zeros(2400)), "old", ["new"])
    assert not found.policies
    words = "off-policy value of new is left out: 'new_propensity' is 0 in every row, so it would show nothing that"
    assert any(w.startswith(words) for w in found.comparison.warnings)


def test_a_winner_by_metrics_that_loses_off_policy_is_not_recommended(tmp_path):
    # What was clicked weighs a half, and the rest so much more that weights average 1.
    rate = columns()["label"].mean()
    shy = np.where(columns()["label"] == 1, 0.125, 0.25 * (1 - rate / 2) / (1 - rate))
    found = compare_log(write(tmp_path, new_propensity=shy, position=None), "old", ["new"]).comparison
    assert found.outcomes == {"new": "better"}
    assert found.headline.startswith("Don't switch to new yet") and "off-policy its policy is worth" in found.headline
    assert any(w.startswith("new: off-policy its policy is worth") for w in found.warnings)


def test_that_weights_of_rows_are_not_used_off_policy_is_told(tmp_path):
    found = compare_log(write(tmp_path, weight=np.arange(2400) % 2 + 1.0), "old", ["new"]).comparison
    words = "off-policy values count every row once: the log's weights (1 to 2) are not used there"
    assert words in found.warnings


def bandit_log(folder, log, other):
    """Write one policy's log with the other's chances of the same; return the path and the other's click rate."""
    shown, evaluated = (pq.read_table(SHARED / f"obd_men_{name}.parquet").to_pandas() for name in (log, other))
    place, item = shown["position"].to_numpy() - 1, shown["item_id"].to_numpy()
    policy = np.full((3, 34), 1.0 / 34)
    if other == "bts":
        # Thompson sampling's chances change by the hour, and of what it did not show it logs none: how often it showed
        # an item in a place, over the week, is the policy that is valued.
        counts = np.bincount(
            (evaluated["position"].to_numpy() - 1) * 34 + evaluated["item_id"].to_numpy(), minlength=102
        )
        policy = counts.reshape(3, 34) / counts.reshape(3, 34).sum(axis=1, keepdims=True)
    path = folder / f"{log}.parquet"
    columns = {
        "user_id": np.arange(len(shown)),
        "item_id": item,
        "timestamp": 1_574_553_600_000 + np.arange(len(shown)),
        "label": shown["click"].to_numpy().astype(np.int8),
        "position": place,
        "propensity": shown["propensity_score"].to_numpy(),
        f"{other}_propensity": policy[place, item],
        other: np.log(policy[place, item]),
        log: np.log(shown["propensity_score"].to_numpy()),
    }
    pq.write_table(pa.table(columns), path, write_page_checksum=True)
    return path, float(evaluated["click"].mean())


@pytest.mark.skipif(not (SHARED / "obd_men_bts.parquet").exists(), reason="obd_men_*.parquet is not beside the project")
@pytest.mark.parametrize(("log", "other"), [("random", "bts"), ("bts", "random")])
def test_open_bandit_each_policy_is_valued_rightly_from_the_others_log(tmp_path, log, other):
    path, truth = bandit_log(tmp_path, log, other)
    found = compare_log(path, log, [other]).policies[other]
    for name in ("IPS", "clipped IPS", "SNIPS", *MODELLED):
        assert found.estimates[name].low <= truth <= found.estimates[name].high, (name, found.estimates[name], truth)
    if log == "bts":
        # A symmetric interval of IPS would end at 0.0045, short of 0.0046: one of the clicked rows weighs 178.
        assert "few rows carry the weights: 10,000 count as 656, the largest weight is 178" in found.warnings[0]
