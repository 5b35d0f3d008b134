"""How activations are read is measured on a quantized student, chosen, stored, and followed by its kernel."""

import dataclasses

import numpy as np
import pytest

from recsys_kd.artifact.read import open_artifact
from recsys_kd.compress.activations import TOLERANCE
from recsys_kd.flow import activations
from recsys_kd.flow.activations import losses, times, with_activations
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.compression import publish_artifact
from recsys_kd.flow.publication import same_artifact
from recsys_kd.flow.weighing import weigh
from recsys_kd.progress import SILENT
from recsys_kd.runtime.head import hidden_layers
from recsys_kd.runtime.library import kernel
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.settings import load_recipe
from tests.served import compressed, head, random_student

DIGESTS = {"data": "d" * 64, "recipe": "r" * 64, "teacher": "t" * 64}


@pytest.fixture(scope="module")
def made(dataset):
    return compressed(dataset, random_student(dataset), keep_rows=0.5)


@pytest.fixture
def recipe(shop):
    return load_recipe(shop.recipe)


def asking(recipe, form):
    return recipe.model_copy(update={"compress": recipe.compress.model_copy(update={"activations": form})})


def said(found):
    """Return a choice that measurements, not noise, are to speak for."""
    return lambda served, dataset: found


def test_what_rounding_costs_is_measured_beside_float32(made, dataset):
    found = losses(made.served, dataset)
    assert list(found) == ["15", "8"] and abs(found["15"]) < TOLERANCE and 0 < abs(found["8"]) < 1e-3
    exact = dataclasses.replace(made.served, activations="float32")
    assert losses(exact, dataset) == {"15": 0.0, "8": 0.0}


def test_both_forms_are_timed_where_a_kernel_is(made, dataset, monkeypatch):
    if kernel().library is not None:
        found = times(made.served, dataset)
        assert set(found) == {"int16", "float32"} and all(us > 0 for us in found.values())
    monkeypatch.setenv("RECSYS_KD_KERNEL", "numpy")
    assert times(made.served, dataset) == {}


@pytest.mark.parametrize(
    ("loss", "us", "form"),
    [(1e-12, {"int16": 1.0, "float32": 2.0}, "int16"), (1.0, {"int16": 1.0, "float32": 2.0}, "float32"),
     (1e-12, {"int16": 1.0, "float32": 1.0}, "float32")],
    ids=["cheap and faster", "dear", "no faster"],
)  # fmt: skip
def test_the_choice_is_served_stored_and_followed(made, dataset, recipe, tmp_path, monkeypatch, loss, us, form):
    monkeypatch.setattr(activations, "losses", said({"15": loss, "8": 1.0}))
    monkeypatch.setattr(activations, "times", said(us))
    found = with_activations(recipe, made, dataset, Stages(tmp_path / "work", SILENT), "student-activations")
    assert found.served.activations == form and found.activations.p50_us == us
    path = publish_artifact(tmp_path / "store", "shop", found, dataset, DIGESTS, []).path
    artifact, student = open_artifact(path)
    assert artifact.manifest.activations == student.activations == form
    assert artifact.manifest.lineage.plan["activations"]["form"] == form
    assert artifact.manifest.lineage.plan["activations"]["loss"] == loss
    assert artifact.manifest.lineage.plan["activations"]["gain"] == us["float32"] / us["int16"]
    assert [layer.coded is None for layer in hidden_layers(student)] == [form == "float32"]
    assert Ranker.open(path).manifest is not None  # its golden logits are those of its form
    assert artifact.bytes_on_disk <= weigh(found.served, dataset, found.plan)


def test_a_second_run_reuses_the_measurement(made, dataset, recipe, tmp_path, monkeypatch):
    first = with_activations(recipe, made, dataset, Stages(tmp_path, SILENT), "student-activations")
    monkeypatch.setattr(activations, "measured", None)
    again = with_activations(recipe, made, dataset, Stages(tmp_path, SILENT), "student-activations")
    assert again.activations == first.activations and again.served.activations == first.served.activations


def test_a_recipe_may_ask_for_either_form(made, dataset, recipe, tmp_path):
    for form in ("int16", "float32"):
        found = with_activations(asking(recipe, form), made, dataset, Stages(tmp_path, SILENT), "student-activations")
        assert found.served.activations == form and found.activations.why == "the recipe asks for it"


def test_forms_differ_by_no_more_than_rounding(made, dataset):
    whole, exact = (dataclasses.replace(made.served, activations=form) for form in ("int16", "float32"))
    index, items = head(dataset)
    one, other = (OfflineModel(s, dataset).score_rows(dataset.batch(index), items) for s in (whole, exact))
    assert 0 < np.abs(one - other).max() < 1e-4


def test_another_time_measured_is_no_other_artifact(made, dataset, recipe, tmp_path, monkeypatch):
    found = with_activations(recipe, made, dataset, Stages(tmp_path / "work", SILENT), "student-activations")
    first = publish_artifact(tmp_path / "store", "shop", found, dataset, DIGESTS, [])
    later = dataclasses.replace(found.activations, p50_us={"int16": 99.0, "float32": 99.5})
    second = publish_artifact(
        tmp_path / "store", "shop", dataclasses.replace(found, activations=later), dataset, DIGESTS, []
    )
    assert second.digest == first.digest
    assert same_artifact(tmp_path / "store", first.manifest) is not None
