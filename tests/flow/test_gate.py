"""`recsys-kd gate`: a policy file, an artifact and a log make a verdict, and the registry takes no other."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from recsys_kd.cli.main import app
from recsys_kd.evaluate.comparison import compare
from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.evaluate.gate import Verdict
from recsys_kd.evaluate.judge import Facts, judge
from recsys_kd.evaluate.policy import BadPolicy, Policy, SlicePolicy, load_policy
from recsys_kd.evaluate.sample import Sample
from recsys_kd.evaluate.slices import SliceEffect
from recsys_kd.flow.gate import NotAnArtifact, gate
from recsys_kd.registry.protocol import PromotionRefused
from recsys_kd.registry.rules import check_verdict
from recsys_kd.registry.sqlite import SqliteRegistry
from recsys_kd.registry.store import read_copy
from recsys_kd.settings import AbConfig, Margin, utc
from tests.flow.test_ab import models as models

POLICY = {
    "name": "nightly",
    "against": {"teacher": 0.2, "control": {"auc": 0.2, "logloss": 0.5}},
    "metrics": ["auc", "logloss"],
    "slices": {"margin": 0.3, "against": "control", "names": ["known users"]},
    "max_ece": 0.6,
    "max_bytes": "10MB",
    "latency": {"p50_us": 1e7, "p99_us": 1e7},
    "teacher_max_age_days": 30,
}


@pytest.fixture(scope="module")
def log(shop, tmp_path_factory):
    """The shop's log with a column of teacher's scores."""
    folder = tmp_path_factory.mktemp("gate") / "log"
    for day in sorted((shop.folder / "log").iterdir()):
        table = pq.read_table(day / "part-0.parquet", partitioning=None)
        noise = np.random.default_rng(0).normal(size=table.num_rows).astype(np.float32)
        (folder / day.name).mkdir(parents=True)
        pq.write_table(table.append_column("teacher", pa.array(noise)), folder / day.name / "part-0.parquet",
                       write_page_checksum=True)  # fmt: skip
    return folder


def policy(folder, **changes):
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**POLICY, **changes}.items() if v is not None}))
    return path


def arguments(models, dataset, shop, log, folder, **changes):
    store, ((artifact, _), _) = models
    since = utc(int(dataset.column("timestamp")[dataset.splits["test"].start]))
    return [
        "gate", str(policy(folder, **changes)), "--candidate", str(artifact.path), "--log", str(log),
        "--against", "teacher=teacher", "--against", "control=synthetic-shop@2", "--recipe", str(shop.recipe),
        "--store", str(store), "--since", since, "--out", str(folder / "verdict.json"),
    ]  # fmt: skip


def written(document):
    """Return a verdict as its file holds it, of what `--json` prints."""
    return {k: v for k, v in document.items() if k not in ("champion", "warnings")}


def test_a_passing_verdict_names_artifact_and_log_expires_and_promotes(models, dataset, shop, log, tmp_path):
    store, ((artifact, _), _) = models
    done = CliRunner().invoke(app, [*arguments(models, dataset, shop, log, tmp_path), "--promote"])
    assert done.exit_code == 0, done.output
    assert "candidate" in done.stdout and "passed the gate" in done.stdout and "champion  version 1" in done.stdout
    verdict = Verdict.from_json(json.loads((tmp_path / "verdict.json").read_text()))
    assert verdict.artifact_digest == artifact.digest and len(verdict.measured_on) == 64
    assert verdict.measured_on != verdict.data_digest and verdict.expires > verdict.created
    names = {c.name for c in verdict.checks}
    assert {"auc against teacher", "logloss against control", "slice known users", "calibration", "bytes", "p50", "p99",
            "teacher's age"} <= {n.split(" (")[0] for n in names}  # fmt: skip
    registry = SqliteRegistry(store / "registry.sqlite")
    assert registry.pointer("synthetic-shop", "champion").digest == artifact.digest
    kept = read_copy(store, "synthetic-shop")
    assert kept is not None and kept.aliases == registry.state("synthetic-shop").aliases
    assert f"the gate passed it on log {verdict.measured_on[:12]}" in [e.why for e in registry.audit("synthetic-shop")]


def test_every_broken_rule_is_told_and_the_exit_code_is_1(models, dataset, shop, log, tmp_path):
    strict = {
        "against": {"teacher": 1e-6, "champion": 0.1}, "metrics": ["auc"], "slices": None, "max_ece": 1e-9,
        "max_bytes": 100, "latency": {"p50_us": 0.001}, "teacher_max_age_days": 1e-6,
    }  # fmt: skip
    done = CliRunner().invoke(app, [*arguments(models, dataset, shop, log, tmp_path, **strict), "--json"])
    verdict = json.loads(done.stdout)
    assert done.exit_code == 1 and not verdict["passed"] and verdict["champion"] is None
    failed = {c["name"] for c in verdict["checks"] if not c["passed"]}
    assert failed == {"auc against teacher", "against champion", "calibration", "bytes", "p50", "teacher's age"}
    version = SqliteRegistry(models[0] / "registry.sqlite").version("synthetic-shop", 1)
    with pytest.raises(PromotionRefused, match=r"the gate held it back: .*auc is -0.* outside the margin of 1e-06"):
        check_verdict(version, Verdict.from_json(written(verdict)))


def test_a_verdict_that_was_changed_by_hand_is_refused(models, dataset, shop, log, tmp_path):
    done = CliRunner().invoke(app, [*arguments(models, dataset, shop, log, tmp_path, max_ece=1e-9), "--json"])
    data = written(json.loads(done.stdout))
    version = SqliteRegistry(models[0] / "registry.sqlite").version("synthetic-shop", 1)
    with pytest.raises(PromotionRefused, match="checks do not say what it says"):
        check_verdict(version, Verdict.from_json({**data, "passed": True}))
    checks = [{**c, "passed": True} for c in data["checks"]]
    nowhere = {**data, "passed": True, "checks": checks, "log_digest": "", "data_digest": ""}
    with pytest.raises(PromotionRefused, match="names no log"):
        check_verdict(version, Verdict.from_json(nowhere))


def test_rows_that_are_left_out_are_told_and_are_in_the_file_that_was_named(models, dataset, shop, log, tmp_path):
    day = max(log.iterdir()).name
    table = pq.read_table(log / day / "part-0.parquet", partitioning=None)
    score = table["teacher"].to_numpy().copy()
    score[3] = np.nan
    dirty, kept = tmp_path / "dirty", tmp_path / "bad" / "rows.parquet"
    shutil.copytree(log, dirty)
    table = table.set_column(table.schema.get_field_index("teacher"), "teacher", pa.array(score))
    pq.write_table(table, dirty / day / "part-0.parquet", write_page_checksum=True)
    given = [*arguments(models, dataset, shop, dirty, tmp_path), "--quarantine", str(kept)]
    found = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["warnings"]
    assert found[1].startswith("quarantined: 1 nan; most from ") and found[1].endswith(f"all in {kept}")
    assert pq.read_table(kept)["row"].to_pylist() == [3]
    assert f"warning: {found[1]}" in CliRunner().invoke(app, given).stdout.splitlines()


def test_slices_are_those_of_the_recipe_too_and_by_a_metric_that_is_measured(models, dataset, shop, log, tmp_path):
    recipe = yaml.safe_load(shop.recipe.read_text()) | {"ab": {"slices": ["device"]}}
    recipe["data"] |= {name: str(shop.recipe.parent / recipe["data"][name]) for name in ("path", "catalogue")}
    (tmp_path / "slices.yaml").write_text(yaml.safe_dump(recipe))
    wanted = {"margin": 0.5, "against": "control", "names": ["device"]}
    changes = {"against": {"control": {"logloss": 0.5}}, "metrics": ["auc"], "slices": wanted}
    given = arguments(models, dataset, shop, log, tmp_path, **changes)
    given[given.index(str(shop.recipe))] = str(tmp_path / "slices.yaml")
    checks = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["checks"]
    told = {c["name"]: c["sentence"] for c in checks if c["name"].startswith("slice")}
    assert {"slice device desktop", "slice device phone", "slice device tablet"} == set(told)
    assert all(": logloss " in sentence for sentence in told.values())
    more = {**changes, "against": {"control": {"logloss": 0.5, "auc": 0.5, "mrr": 0.5}}, "metrics": ["logloss"]}
    given = arguments(models, dataset, shop, log, tmp_path, **more)
    given[given.index(str(shop.recipe))] = str(tmp_path / "slices.yaml")
    checks = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["checks"]
    # Other metrics of the policy do not widen the intervals that slices are judged by.
    assert told == {c["name"]: c["sentence"] for c in checks if c["name"].startswith("slice")}


def test_slices_that_can_not_be_measured_hold_back():
    facts = Facts("a" * 64, "d" * 64, "l" * 64, 1, None, 1.0, 1.0, None, 0)
    label = np.tile([1, 0], 50).astype(np.float32)
    sample = Sample(label, np.ones(100, np.float32), np.arange(100) // 4, np.arange(100) // 4)
    score = np.random.default_rng(0).normal(size=100).astype(np.float32)
    few = compare({"champion": score, "candidate": score}, "champion", sample, AbConfig(decide={"auc": Margin()}),
                  slices={"new users": np.arange(100) < 50})  # fmt: skip
    asked = Policy(name="strict", against={"champion": 0.1}, slices=SlicePolicy())
    (check,) = (c for c in judge(asked, {"champion": few}, facts).checks if c.name == "slices")
    assert not check.passed and check.sentence == "no slice could be measured, and the policy asks that none loses 0.02"


def judged(difference, **slices):
    label = np.tile([1, 0], 50).astype(np.float32)
    sample = Sample(label, np.ones(100, np.float32), np.arange(100) // 4, np.arange(100) // 4)
    score = np.random.default_rng(0).normal(size=100).astype(np.float32)
    found = compare({"champion": score, "candidate": score}, "champion", sample, AbConfig(decide={"auc": Margin()}))
    part = SliceEffect("tail items", 50, 12, "candidate", "auc", Interval(*difference), 1.0)
    facts = Facts("a" * 64, "d" * 64, "l" * 64, 1, None, 1.0, 1.0, None, 0)
    asked = Policy(name="p", against={"champion": 0.1}, slices=SlicePolicy(**slices))
    verdict = judge(asked, {"champion": dataclasses.replace(found, slices=(part,))}, facts)
    return next(c for c in verdict.checks if c.name == "slice tail items")


@pytest.mark.parametrize(
    ("difference", "words", "passes", "passes_strictly"),
    [
        ((0.001, -0.01, 0.012), "loses no more than 0.02", True, True),
        ((-0.13, -0.38, 0.11), "is not known to lose no more than 0.02", True, False),
        ((-0.13, -0.2, -0.05), "loses more than 0.02", False, False),
    ],
)
def test_a_slice_is_held_back_where_it_is_shown_to_lose_or_strictly_where_it_may(
    difference, words, passes, passes_strictly
):
    for strict, expected in ((False, passes), (True, passes_strictly)):
        check = judged(difference, strict=strict)
        assert check.passed == expected and check.sentence.endswith(f"from the champion {words}")
        assert check.measured == difference[1 if strict else 2]


def test_what_ab_would_warn_of_is_told_by_the_gate(models, dataset, shop, log, tmp_path):
    given = arguments(models, dataset, shop, log, tmp_path, against={"teacher": 0.5, "control": 0.5})
    given[given.index("control=synthetic-shop@2")] = "control=synthetic-shop@1"
    notes = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["warnings"]
    assert any("are the same artifact: they can't differ" in note for note in notes)


def test_the_live_champion_is_not_replaced_by_what_was_not_compared_with_it(models, dataset, shop, log, tmp_path):
    store, _ = models
    registry, known = SqliteRegistry(tmp_path / "own.sqlite"), SqliteRegistry(store / "registry.sqlite")
    for version in known.versions("synthetic-shop")[:2]:
        registry.register("synthetic-shop", version.digest, Path(version.path), {}, "ann")
    given = arguments(models, dataset, shop, log, tmp_path, against={"teacher": 0.5}, metrics=["auc"], slices=None)
    given += ["--registry", str(tmp_path / "own.sqlite"), "--promote"]
    assert CliRunner().invoke(app, given).exit_code == 0  # nothing was live
    live = registry.pointer("synthetic-shop", "champion")
    given[given.index("--candidate") + 1] = "synthetic-shop@2"
    done = CliRunner().invoke(app, given)
    assert live.number == 1 and isinstance(done.exception, PromotionRefused)
    assert "version 1 is live, and the policy did not compare it; give champion a margin" in str(done.exception)
    assert registry.pointer("synthetic-shop", "champion") == live
    compared = policy(tmp_path, against={"teacher": 0.5, "champion": 0.5}, metrics=["auc"], slices=None)
    given[1:2] = [str(compared), "--against", "champion=synthetic-shop@champion"]
    assert CliRunner().invoke(app, given).exit_code == 0
    assert registry.pointer("synthetic-shop", "champion").number == 2


def test_a_column_of_scores_can_not_be_judged(shop, log, tmp_path):
    with pytest.raises(NotAnArtifact, match="'teacher' is a log column"):
        gate(load_policy(policy(tmp_path)), log, "teacher", {}, shop.recipe)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"margins": 1}, "margins: unknown key"),
        ({"against": {"teacher": -0.1}}, r"against.teacher.auc: margin -0.1; margins are above 0"),
        ({"valid_days": 90}, "valid_days"),
    ],
)
def test_a_policy_that_can_not_be_used_names_its_key(tmp_path, changes, words):
    with pytest.raises(BadPolicy, match=words):
        load_policy(policy(tmp_path, **changes))
