"""What a verdict is bound to: champion, models, policy and times; and what is told before anything is measured."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from recsys_kd.cli.main import app
from recsys_kd.evaluate.gate import Verdict
from recsys_kd.evaluate.inspect import NoInterval
from recsys_kd.evaluate.judge import Facts, _of_artifact
from recsys_kd.evaluate.measure import measure
from recsys_kd.evaluate.policy import BadPolicy, Policy, load_policy
from recsys_kd.evaluate.sample import Sample
from recsys_kd.flow.ab_refs import Ref
from recsys_kd.flow.gate import gate, promote
from recsys_kd.flow.gate_policy import check_policy, metrics_of
from recsys_kd.flow.lineage import BadTime, check_unseen
from recsys_kd.registry.protocol import StaleEpoch
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.flow.test_ab import models as models
from tests.flow.test_gate import arguments, policy
from tests.flow.test_gate import log as log
from tests.served import LINEAGE

FACTS = Facts("a" * 64, "d" * 64, "l" * 64, 30_000_000, 20_000_000, 1.0, 1.0, 1_767_000_000_000, 1_767_313_450_000)


@dataclasses.dataclass
class Manifest:
    lineage: object


def ref(first, last):
    return Ref(
        "shop@1", digest="a", manifest=Manifest(dataclasses.replace(LINEAGE, seen={"first": first, "last": last}))
    )


def test_a_champion_that_changed_while_the_gate_judged_stops_the_promotion(models, dataset, shop, log, tmp_path):
    store, _ = models
    given = arguments(models, dataset, shop, log, tmp_path)
    asked, since = load_policy(policy(tmp_path)), given[given.index("--since") + 1]
    others = {"teacher": "teacher", "control": "synthetic-shop@2", "champion": "teacher"}
    judged = gate(asked, log, "synthetic-shop@1", others, shop.recipe, store, since)
    registry = SqliteRegistry(store / "registry.sqlite")
    epoch = registry.epoch("synthetic-shop")
    about_2 = dataclasses.replace(judged.verdict, artifact_digest=registry.version("synthetic-shop", 2).digest)
    registry.promote("synthetic-shop", 2, about_2, epoch, "bob", "meanwhile")
    with pytest.raises(StaleEpoch, match=f"epoch is {epoch + 1}, this promotion was decided at {epoch}"):
        promote(judged, store, "ann")
    again = gate(asked, log, "synthetic-shop@1", others, shop.recipe, store, since)
    assert again.notes[-1].startswith("what was compared as champion is column 'teacher', and live is version 2 (art")
    assert promote(again, store, "ann").epoch == epoch + 2


def test_a_verdict_tells_its_policy_and_what_each_model_was(models, dataset, shop, log, tmp_path, monkeypatch):
    store, _ = models
    (tmp_path / "empty").mkdir()
    given = arguments(models, dataset, shop, log, tmp_path)
    given[given.index("--store") + 1] = str(tmp_path / "empty")
    # The registry is that of the environment, as for all commands, and not one in --store.
    monkeypatch.setenv("RECSYS_KD_REGISTRY", str(store / "registry.sqlite"))
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "verdict.json").read_text())
    digest = SqliteRegistry(store / "registry.sqlite").version("synthetic-shop", 2).digest
    assert found["compared"] == {"teacher": "column 'teacher'", "control": f"synthetic-shop@2, artifact {digest}"}
    assert found["policy"] == f"nightly, {load_policy(tmp_path / 'policy.yaml').digest}"
    assert Verdict.from_json(found).compared == found["compared"]
    assert "teacher is column 'teacher'" in done.stdout and f"by policy {found['policy'][:21]}" in done.stdout


def test_a_log_of_seconds_that_are_read_as_milliseconds_is_refused():
    seconds = np.array([1_767_600_000, 1_767_700_000])
    words = "timestamp: 2 of 2 rows are from before 1990 .* 1970-01-21T.*is data.timestamp_unit in the recipe the log's"
    with pytest.raises(BadTime, match=words):
        check_unseen([ref(1_767_500_000_000, 1_767_599_999_999)], seconds)
    assert "rows are from before 1990 or after 2100" in check_unseen([Ref("old", column="old")], seconds)[0]


def test_rows_from_before_a_models_training_days_are_refused():
    model = ref(1_767_600_000_000, 1_767_700_000_000)
    stamp = np.array([1_767_500_000_000, 1_767_800_000_000])
    words = (
        r"1 of 2 rows are from before 'shop@1' began to learn \(2026-01-05T08:00:00.*, the first from 2026-01-04T04:13"
    )
    with pytest.raises(BadTime, match=words):
        check_unseen([model], stamp)
    assert check_unseen([model], stamp[1:]) == ()


def test_sizes_and_ages_are_told_whole_and_from_when_they_count():
    asked = Policy(name="p", against={"teacher": 0.1}, teacher_max_age_days=14)
    told = {c.name: c for c in _of_artifact(asked, {}, FACTS)}
    assert told["bytes"].sentence == "the artifact weighs 30,000,000 bytes, above the 20,000,000 allowed"
    assert told["teacher's age"].sentence == (
        "from the teacher's last row (2025-12-29T09:20:00+00:00) to the log's (2026-01-02T00:24:10+00:00) it is "
        "3.63 days, within the 14 allowed"
    )
    assert not told["log's age"].gates and "last row is of 2026-01-02T00:24:10+00:00, " in told["log's age"].sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_bytes": "lots"}, "max_bytes: 'lots' is not a size"),
        ({"against": {"champion": {"foo": 0.1}}}, "against.champion: no metric 'foo'; these are auc, gauc"),
        (
            {"metrics": ["ndcg@5"], "against": {"teacher": 0.1}},
            "metrics: no metric 'ndcg@5'; .*evaluate.k in the recipe",
        ),
        ({"slices": {"against": "nobody"}}, "slices.against: 'nobody' is neither in .* these are control, teacher"),
    ],
)
def test_a_policy_that_can_not_be_met_is_told_with_its_file_before_anything_is_measured(tmp_path, changes, words):
    asked = load_policy(policy(tmp_path, **{"slices": None, **changes}))
    with pytest.raises(BadPolicy, match=f"{tmp_path}/policy.yaml: {words}"):
        check_policy(asked, (), (10,))


def test_a_mean_over_users_is_refused_before_the_log_is_read_where_intervals_are_by_request(tmp_path):
    asked = load_policy(policy(tmp_path, slices=None, metrics=["gauc"], against={"teacher": 0.1}))
    check_policy(asked, (), (10,))
    with pytest.raises(NoInterval, match="gauc can't decide"):
        check_policy(asked, (), (10,), "request")


@pytest.mark.parametrize(("twice", "why"), [("teacher=b", "stands twice"), ("candidate=b", "is what is judged")])
def test_models_of_a_gate_have_names_of_their_own(tmp_path, twice, why):
    given = ["gate", str(tmp_path / "p.yaml"), "--candidate", "a", "--log", "l", "--against", "teacher=a"]
    done = CliRunner().invoke(app, [*given, "--against", twice])
    assert done.exit_code == 2 and why in " ".join(done.stderr.split())


def test_a_policy_may_name_every_metric_that_a_log_can_have():
    label = np.array([1, 0, 0, 1], dtype=np.float32)
    code, one = np.array([0, 0, 1, 1]), np.ones(4, dtype=np.float32)
    sample = Sample(label, one, code, code, np.arange(4), one, label)
    assert set(measure(np.arange(4, dtype=np.float32), sample, (1, 5), 2)) == set(metrics_of((1, 5)))
