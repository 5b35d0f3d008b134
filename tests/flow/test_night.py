"""The whole night on a small shop, and what happens when it goes wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from recsys_kd.compress.plan import BadBudget
from recsys_kd.data.dataset import Dataset
from recsys_kd.errors import InputError
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.demo import oracle_auc
from recsys_kd.flow.dry_run import plan
from recsys_kd.flow.folders import FolderUnwritable
from recsys_kd.flow.models import load_teacher, teacher_bytes
from recsys_kd.flow.night import open_registry, read, run
from recsys_kd.flow.options import Wanted
from recsys_kd.flow.planning import plan as make_plan
from recsys_kd.flow.training import log_key, teach
from recsys_kd.models.plugins import UnknownTeacher
from recsys_kd.models.teacher import Teacher
from recsys_kd.progress import SILENT
from recsys_kd.registry.store import read_copy
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.settings import CompressConfig, load_recipe
from tests.conftest import quick


@pytest.fixture(scope="module")
def recipe(shop, tmp_path_factory):
    return quick(load_recipe(shop.recipe), tmp_path_factory.mktemp("night"))


@pytest.fixture(scope="module")
def night(recipe, shop):
    return run(recipe, SILENT, ceiling=lambda dataset: oracle_auc(shop, dataset))


def test_a_night_ends_with_a_live_model_that_scores(recipe, night):
    assert night.verdict.passed
    champion = open_registry(recipe).pointer(recipe.name, "champion")
    assert champion.digest == night.artifact.digest
    ranker = Ranker.open(night.artifact.path)
    scores = ranker.score({"user_id": 1, "device": "phone", "hour": 3}, night.scored["candidates"])
    assert ((scores > 0) & (scores < 1)).all()


def test_every_stage_is_measured_and_better_than_chance(night):
    metrics = night.evaluation.metrics
    assert set(metrics) == {"teacher", "control", "control served", "student", "pruned", "recovered", "served"}
    assert all(m["auc"].value > 0.55 for m in metrics.values())
    report = json.loads(night.report_json.read_text())
    assert report["ceiling"] > max(m["auc"].value for m in metrics.values())
    counts = report["counts"]
    assert counts["read"] == counts["used"] + sum(counts["quarantined"].values()) + counts["deduplicated"]
    assert night.artifact.bytes_on_disk <= report["sizes"]["teacher"]["bytes"] / 4


class Noted:
    """Progress that keeps what it is told."""

    def __init__(self):
        self.told, self.task = [], SILENT.task

    def note(self, message):
        self.told.append(message)


def test_a_night_that_keeps_no_rows_says_so_and_its_report_too(recipe, night, tmp_path):
    notes = Noted()
    compress = CompressConfig(threshold=1e9)
    bare = run(recipe.model_copy(update={"store": tmp_path, "compress": compress}), notes, publish=False)
    said = "no id keeps a row of its own, and every id scores as the fallback row of its table; lower"
    warnings = [told for told in notes.told if said in told]
    assert warnings == [f"warning: {said} `compress.threshold`, now 1e+09"]
    assert warnings[0].removeprefix("warning: ") in json.loads(bare.report_json.read_text())["notes"]
    assert not any(said in note for note in json.loads(night.report_json.read_text())["notes"])


def test_int8_costs_next_to_nothing(night):
    assert abs(night.evaluation.deltas["served - recovered"]["auc"].value) < 0.002


def test_a_second_run_does_nothing_again_and_comes_to_the_same(recipe, night):
    again = run(recipe, SILENT)
    report = json.loads(again.report_json.read_text())
    assert set(report["stages"].values()) == {"reused"}
    assert again.evaluation.to_json()["metrics"]["served"] == night.evaluation.to_json()["metrics"]["served"]


def test_a_bag_is_the_mean_of_the_teachers_that_were_trained_anyway(recipe, night):
    work = recipe.work
    whole, labels = next(work.glob("teacher-*")), next(work.glob("soft-labels-*"))
    data = Dataset.open(next(work.glob("read-*/rows")))
    bagged = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"bag": True})})
    bag = load_teacher(bagged, data, whole, labels)
    paths = [whole / "teacher", *sorted(labels.glob("teacher-*"))]
    assert len(paths) == 1 + recipe.soft_labels.teachers
    batch = data.batch(slice(0, 50))
    mean = np.mean([Teacher.load(path).score(batch) for path in paths], axis=0)
    assert np.allclose(bag.model.score(batch), mean, atol=1e-6)
    assert bag.bytes == sum(p.stat().st_size for path in paths for p in path.iterdir())
    # Foretold without headers and settings, which weigh a little in teachers as small as these.
    assert 1.0 < bag.bytes / teacher_bytes(bagged, data.schema) < 1.1


def test_a_changed_student_reuses_read_and_teacher(recipe, night):
    student = recipe.student.model_copy(update={"epochs": 1})
    again = run(recipe.model_copy(update={"student": student}), SILENT)
    stages = json.loads(again.report_json.read_text())["stages"]
    assert stages == {
        "read": "reused", "teacher": "reused", "soft-labels": "reused", "control": "run", "student": "run",
        "student-recovery": "run", "control-recovery": "run",
        "student-activations": "run", "control-activations": "run",
    }  # fmt: skip
    assert "champion" in again.evaluation.metrics


def test_a_gate_that_fails_registers_but_does_not_promote(recipe, night, tmp_path):
    gate = recipe.gate.model_copy(update={"min_ratio": 1e9})
    strict = recipe.model_copy(update={"gate": gate, "store": tmp_path / "store"})
    held = run(strict, SILENT)
    assert not held.verdict.passed and held.champion is None
    assert [v.number for v in open_registry(strict).versions(recipe.name)] == [1]


def test_a_budget_that_can_not_be_met_stops_before_any_training(recipe, tmp_path):
    compress = recipe.compress.model_copy(update={"ratio": None, "bytes": 500})
    poor = recipe.model_copy(update={"compress": compress, "work": tmp_path / "w", "store": tmp_path / "s"})
    with pytest.raises(BadBudget, match="500 bytes can't be met"):
        run(poor, SILENT)
    assert [p.name.split("-")[0] for p in (tmp_path / "w").iterdir()] == ["read"]


def test_a_store_that_can_not_be_written_stops_before_any_training(recipe, tmp_path):
    (tmp_path / "store").write_text("")
    for store in (tmp_path / "store", tmp_path / "store" / "below", Path("/proc/nowhere")):
        wrong = recipe.model_copy(update={"store": store, "work": tmp_path / "w"})
        for refuse in (lambda r: run(r, SILENT), lambda r: make_plan(r, Wanted(), SILENT), plan):
            with pytest.raises(FolderUnwritable, match=f"^store: {store} can't be written") as found:
                refuse(wrong)
            assert found.value.exit_code == 2  # no InputError: a store that is away comes back, and a queue tries again
            assert not isinstance(found.value, InputError)
    assert not (tmp_path / "w").exists()


def test_logged_scores_can_be_the_teacher(shop, recipe, tmp_path):
    teacher = {"kind": "precomputed", "column": "propensity", "scores": "probability"}
    changed = recipe.model_copy(
        update={
            "teacher": type(recipe.teacher).model_validate(teacher),
            "compress": type(recipe.compress)(keep_rows=0.5),
            "store": tmp_path / "s",
            "work": tmp_path / "w",
        }
    )
    found = run(changed, SILENT)
    assert 0.4 < found.evaluation.metrics["teacher"]["auc"].value < 0.65
    assert np.isfinite(found.evaluation.metrics["student"]["auc"].value)


def test_a_teacher_of_another_package_is_found_by_entry_point(recipe, tmp_path, monkeypatch):
    package = tmp_path / "site"
    (package / "shop_teacher-1.dist-info").mkdir(parents=True)
    (package / "shop_teacher-1.dist-info" / "METADATA").write_text("Name: shop-teacher\nVersion: 1\n")
    (package / "shop_teacher-1.dist-info" / "entry_points.txt").write_text(
        "[recsys_kd.teachers]\npopular = shop_teacher:fit\n"
    )
    (package / "shop_teacher.py").write_text(POPULAR)
    monkeypatch.syspath_prepend(str(package))
    places = {"store": tmp_path / "s", "work": tmp_path / "w", "compress": type(recipe.compress)(keep_rows=0.5)}
    plugged = recipe.model_copy(update={"teacher": type(recipe.teacher)(kind="popular"), **places})
    assert 0.5 < run(plugged, SILENT).evaluation.metrics["teacher"]["auc"].value < 0.75
    stages, labels = Stages(plugged.work, SILENT), []
    dataset, key = read(plugged, stages)
    for members in (1, 2):
        soft = plugged.soft_labels.model_copy(update={"members": members})
        each = plugged.model_copy(update={"soft_labels": soft})
        labels.append(teach(each, dataset, log_key(each, key), stages).soft[: dataset.splits["train"].stop])
    assert np.isfinite(labels[1]).all() and not np.allclose(*labels, atol=1e-3)  # the second has a seed of its own
    with pytest.raises(UnknownTeacher, match="'absent' is none of: dcnv2, precomputed, popular"):
        run(recipe.model_copy(update={"teacher": type(recipe.teacher)(kind="absent"), **places}), SILENT)


POPULAR = """
import numpy as np

class Popular:
    def __init__(self, schema, rate):
        self.schema, self.rate = schema, rate

    def score(self, batch):
        return self.rate[batch.ids["item_id"]]

def fit(source, rows, validation, seed):
    batch = source.batch(rows)
    item, size = batch.ids["item_id"], source.schema.vocabularies["item_id"].size
    clicks = np.bincount(item, weights=batch.label, minlength=size)
    p = (clicks + 1 + seed // 1000) / (np.bincount(item, minlength=size) + 4 + 3 * (seed // 1000))
    return Popular(source.schema, np.log(p / (1 - p)).astype(np.float32))
"""


def cli(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "recsys_kd", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_dry_run_prints_the_plan_as_one_json_document(shop):
    done = cli("run", str(shop.recipe), "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert done.returncode == 0 and plan["rows"] == 30_000 and plan["tables"]["category"]["rows_at_most"] == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 1}, "seeds: unknown key"),
        ({"data": {"path": "nowhere"}}, "does not exist"),
        ({"data": {"path": "log", "columns": {"label": "bought"}}}, "no column 'bought'"),
    ],
)
def test_bad_configuration_exits_with_2_and_says_what_to_do(shop, tmp_path, change, words):
    data = {**yaml.safe_load(shop.recipe.read_text()), **change}
    path = shop.folder / f"bad-{abs(hash(words))}.yaml"
    path.write_text(yaml.safe_dump(data))
    done = cli("run", str(path))
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("run",), ("run", "--dry-run"), ("plan",)])
def test_what_is_wrong_with_a_recipes_keys_names_its_file(shop, command):
    path = shop.folder / "no-column.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(shop.recipe.read_text()), "teacher": {"kind": "precomputed"}}))
    done = cli(command[0], str(path), *command[1:])
    assert done.returncode == 2
    assert f"recsys-kd: {path}: teacher.column: kind `precomputed` needs the log column" in done.stderr


def test_registry_commands_show_and_roll_back(recipe, night):
    store = str(recipe.store)
    rows = json.loads(cli("registry", "list", "--store", store, "--json").stdout)
    assert rows[0]["model"] == recipe.name
    assert cli("registry", "verify", recipe.name, "1", "--store", store).returncode == 0
    kept = read_copy(recipe.store, recipe.name)  # what a lost registry is restored from, without any worker
    assert kept is not None and kept.aliases["champion"].digest == rows[0]["digest"]
    nothing = cli("registry", "rollback", "nobody", "--why", "x", "--store", store)
    assert nothing.returncode == 2 and "no model 'nobody' is registered here" in nothing.stderr
    unable = cli("registry", "rollback", recipe.name, "--why", "x", "--store", store)
    assert unable.returncode == 2 and "another version goes live by its night, or by `recsys-kd gate" in unable.stderr
    same = cli("registry", "rollback", recipe.name, "--why", "x", "--to", "1", "--store", store)
    assert same.returncode == 2 and "version 1 is live already" in same.stderr


def test_doctor_finds_this_machine_sound(tmp_path):
    done = cli("doctor", "--json", "--store", str(tmp_path))
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["ok"], found
