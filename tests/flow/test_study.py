"""The study trains what a night trains, and nothing twice."""

import json
import subprocess
import sys

import pytest
import yaml

from recsys_kd.flow.study import UnknownArm, arms_of, study
from recsys_kd.progress import SILENT
from recsys_kd.settings import OVER_FEATURES, TeacherConfig, load_recipe
from tests.conftest import quick


class Told(type(SILENT)):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


@pytest.fixture(scope="module")
def recipe(shop, tmp_path_factory):
    return quick(load_recipe(shop.recipe), tmp_path_factory.mktemp("study"))


def test_a_study_compares_its_arms_and_goes_on_where_it_was(recipe):
    first = study(recipe, 1, ["recipe"], Told())
    assert [a.name for a in first.found.arms] == ["teacher", "control", "recipe"]
    progress = Told()
    more = study(recipe, 2, ["recipe", "listwise", "recipe"], progress)
    assert [a.name for a in more.found.arms] == ["teacher", "control", "recipe", "listwise"]
    assert more.found.seeds == (7, 8)
    for name in ("teacher", "control", "recipe"):
        assert more.found.arm(name).seeds[0] == first.found.arm(name).seeds[0]
    assert more.found.arm("listwise").seeds[0] != more.found.arm("recipe").seeds[0]
    reused = [line.split(":")[0] for line in progress.said if line.endswith("unchanged, reused")]
    assert [reused.count(name) for name in ("read", "control", "student")] == [1, 1, 1], progress.said
    assert len(list(recipe.work.glob("teacher-*"))) == len(list(recipe.work.glob("soft-labels-*"))) == 2
    assert len(list(recipe.work.glob("control-*"))) == 2 and len(list(recipe.work.glob("student-*"))) == 4


def test_arms_are_named_where_one_is_unknown_and_fit_the_teacher(recipe):
    with pytest.raises(UnknownArm, match="--arms: 'listwyse' is none of recipe, soft_bce"):
        arms_of(recipe, ["listwyse"])
    logged = recipe.model_copy(update={"teacher": TeacherConfig(kind="precomputed", column="x")})
    assert set(arms_of(recipe, [])) - set(arms_of(logged, [])) == OVER_FEATURES | {
        "ensemble",
        "gated",
        "teacher_start",
    }


def test_the_command_prints_one_document_and_writes_its_page(shop, recipe, tmp_path):
    plain = yaml.safe_load(shop.recipe.read_text())
    small = {s: recipe.model_dump(mode="json")[s] for s in ("teacher", "student", "soft_labels")}
    plain |= {**small, "work": str(recipe.work), "store": str(tmp_path / "store"), "name": "studied"}
    path = shop.folder / "study.yaml"
    path.write_text(yaml.safe_dump(plain))
    command = [sys.executable, "-m", "recsys_kd", "study", "distil", str(path), "--seeds", "1", "--arms"]
    done = subprocess.run([*command, "recipe", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [a["name"] for a in found["arms"]] == ["teacher", "control", "recipe"] and found["seeds"] == [7]
    assert "<svg" in (tmp_path / "store" / "studied" / "reports").joinpath(*found["report"].split("/")[-2:]).read_text()
    again = subprocess.run([*command, "recipe,recipe", "--json"], capture_output=True, text=True, check=False)
    twice = json.loads(again.stdout)
    assert twice["command"] == found["command"] and twice["report"] != found["report"]
    wrong = subprocess.run([*command, "nothing"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "--arms: 'nothing' is none of" in wrong.stderr
