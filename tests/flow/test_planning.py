"""The plan's choice keeps its limits by measurement; what can't be kept is refused with the nearest that can."""

import re

import pytest
import yaml

from recsys_kd.compress.plan import BadBudget, BudgetTooSmall
from recsys_kd.evaluate.pareto import told_bytes
from recsys_kd.flow import forms, planning
from recsys_kd.flow.forms import FINALISTS
from recsys_kd.flow.options import Option, Planned, Wanted
from recsys_kd.flow.planning import plan
from recsys_kd.progress import SILENT
from recsys_kd.settings import CompressConfig, load_recipe
from tests.conftest import quick


@pytest.fixture(scope="module")
def recipe(shop, tmp_path_factory):
    return quick(load_recipe(shop.recipe), tmp_path_factory.mktemp("plan"))


class Notes:
    """Progress that keeps what it is told."""

    def __init__(self):
        self.told, self.task = [], SILENT.task

    def note(self, message):
        self.told.append(message)


def test_a_budget_of_bytes_is_filled_and_the_better_fold_is_chosen(recipe):
    notes = Notes()
    found = plan(recipe, Wanted(bytes=12_000), notes)
    for fold in ("item", "field"):
        assert f"plan: fold {fold}, 50% of the units, 12,000 bytes: pruning, weighing, timing" in notes.told
    assert sum("fitting once more, scoring" in told for told in notes.told) == FINALISTS
    assert [sorted({getattr(o, name) for o in found.options}) for name in ("fold", "units")] == [
        ["field", "item"],
        [0.5, 1],
    ]
    assert sum(o.auc is not None for o in found.options) == FINALISTS
    assert all("predicted to lose more" in o.why for o in found.options if o.auc is None)
    assert all(0.97 * 12_000 <= o.bytes <= 12_000 and o.p50_us > 0 for o in found.options)
    assert found.chosen.auc == max(o.auc for o in found.options if o.auc is not None)
    assert found.chosen.loss == pytest.approx(found.student - found.chosen.auc)
    settings = yaml.safe_load(found.settings())
    assert found.lines()[-1].endswith(f"compress: {found.settings()}") and settings["bytes"] == 12_000
    activations = found.chosen.activations
    config = CompressConfig.model_validate(settings)
    assert (config.units, config.activations) == (found.chosen.units, activations.form)
    assert list(activations.loss) == ["15", "8"] and found.lines()[-2] == activations.line()
    assert abs(activations.loss["15"]) < 1e-7 and abs(activations.loss["8"]) < 1e-3
    assert found.chosen.why == "chosen: keeps all limits, and loses least in these bytes"
    (other,) = (o for o in found.options if o.auc is not None and o is not found.chosen)
    more = found.chosen.auc - other.auc
    told = f"{more:.4f}" if more >= 0.00005 else "less than 0.0001"
    assert other.why == f"loses {told} AUC more than the chosen one"


def test_what_the_plan_kept_to_is_written_into_the_recipe_too():
    option = Option("item", 0.5, False, 100, 90, {"item": 1}, {"item": 1}, {"item": 4}, {}, 0.1, 5.0, auc=0.7, loss=0.0)
    told = Planned([option], option, 0.7, 4000, 1000, {"bits": [8], "recovery": {"epochs": 0}}).lines()[-1]
    config = CompressConfig.model_validate(yaml.safe_load(told.partition("compress: ")[2]))
    assert config == CompressConfig(bytes=100, units=0.5, tiers=False, bits=(8,), recovery={"epochs": 0})


def test_a_loss_below_0_is_told_to_be_a_gain():
    def lines(loss):
        shape = {"item": 1}, {"item": 1}, {"item": 4}, {}
        option = Option("item", 1.0, True, 100, 90, *shape, 0.1, 5.0, auc=0.7, loss=loss)
        return Planned([option], option, 0.7 + loss, 4000, 1000).lines()

    said = "lost below 0 is a gain: pruned and fitted once more, it scores above the float student there"
    assert said in lines(-0.001) and said not in lines(0.001)
    assert "-0.0010" in lines(-0.001)[2]


def test_without_a_budget_the_smallest_that_loses_little_enough_is_chosen(recipe):
    found = plan(recipe, Wanted(loss=0.5), SILENT)
    assert found.chosen.budget == min(o.budget for o in found.options) and found.chosen.bytes <= found.chosen.budget
    assert found.chosen.loss <= 0.5 and found.chosen.why.startswith("chosen: the smallest that keeps all limits")


def test_what_keeps_rows_is_nearer_than_what_is_fast_and_keeps_none(timed_by_bytes):
    with pytest.raises(BudgetTooSmall) as no:
        plan(timed_by_bytes, Wanted(bytes=5), SILENT)
    with pytest.raises(BadBudget, match=r"the nearest is .* us: takes .* raise --p50-us$") as far:
        plan(timed_by_bytes, Wanted(bytes=12_000, p50_us=1), SILENT)
    named = int(re.search(r"units, ([\d,]+) bytes", str(far.value))[1].replace(",", ""))
    assert no.value.needed * 1.03 < named <= 12_000


@pytest.fixture
def timed_by_bytes(recipe, monkeypatch):
    """The recipe, where 1,000 candidates take 1 us per 500 bytes."""
    monkeypatch.setattr(forms, "latency_of", lambda path: (sum(f.stat().st_size for f in path.iterdir()) / 500, 0.0))
    return recipe.model_copy(update={"compress": recipe.compress.model_copy(update={"activations": "int16"})})


def test_a_ceiling_of_bytes_holds_smaller_artifacts_where_the_largest_are_too_slow(timed_by_bytes):
    found = plan(timed_by_bytes, Wanted(bytes=20_000, p50_us=22), SILENT)
    assert 9_000 < found.chosen.bytes <= 11_000 and found.chosen.p50_us <= 22
    assert found.chosen.why == "chosen: keeps all limits, and loses least in these bytes"
    assert sum("more than 22" in o.why for o in found.options if o.budget == 20_000) == 4


def test_below_the_smallest_share_of_the_teacher_smaller_artifacts_are_tried_too(timed_by_bytes, monkeypatch):
    monkeypatch.setattr(planning, "LADDER", (3, 2))
    found = plan(timed_by_bytes, Wanted(p50_us=22), SILENT)
    assert 9_000 < found.chosen.bytes <= 11_000 < found.teacher_bytes / 3
    assert found.chosen.why == "chosen: keeps all limits, and loses least of those fast enough"


def test_an_artifact_that_keeps_no_rows_is_warned_of_with_the_limit_to_raise(timed_by_bytes):
    with pytest.raises(BudgetTooSmall) as no:
        plan(timed_by_bytes, Wanted(bytes=5), SILENT)
    least = no.value.needed
    bare = plan(timed_by_bytes, Wanted(bytes=least), SILENT)
    words = "no id keeps a row of its own, and every id scores as the fallback row of its table; "
    assert not any(bare.chosen.rows.values()) and bare.warnings == (f"{words}raise --bytes, now {least}",)
    assert bare.lines()[-2] == f"warning: {bare.warnings[0]}" and bare.to_json()["warnings"] == bare.warnings
    slow = plan(timed_by_bytes, Wanted(bytes=12_000, p50_us=least / 500), SILENT)
    assert slow.warnings == (f"{words}raise --p50-us",)
    assert plan(timed_by_bytes, Wanted(bytes=12_000), SILENT).warnings == ()


def test_bytes_that_no_form_can_keep_are_refused_before_any_training_and_those_named_are_enough(recipe, tmp_path):
    fresh = recipe.model_copy(update={"work": tmp_path / "work"})
    with pytest.raises(BudgetTooSmall, match=r"^plan: --bytes 5: a budget of 5 bytes can't be met: .* give more") as no:
        plan(fresh, Wanted(bytes=5), SILENT)
    assert no.value.exit_code == 2 and [p.name.split("-")[0] for p in fresh.work.iterdir()] == ["read"]
    assert plan(recipe, Wanted(bytes=no.value.needed), SILENT).chosen.bytes <= no.value.needed


@pytest.mark.parametrize(
    ("wanted", "words"),
    [(Wanted(bytes=12_000, p50_us=0.1), r"no artifact keeps --bytes 12000 --p50-us 0.1 .* takes \d+ us, more"),
     (Wanted(bytes=12_000, loss=-1.0), "the nearest is fold .* give one of them room"),
     (Wanted(p50_us=0.1), r"no artifact keeps --p50-us 0.1; the nearest is .* us, more than 0.1; raise --p50-us$"),
     (Wanted(bytes=100), "a budget of 100 bytes can't be met: .* bytes are needed")],
)  # fmt: skip
def test_limits_that_can_not_be_kept_are_refused_with_what_comes_nearest(recipe, wanted, words):
    with pytest.raises(BadBudget, match=words):
        plan(recipe, wanted, SILENT)


def test_the_picture_has_every_option_that_was_finished_and_rings_the_chosen_one(recipe):
    found = plan(recipe, Wanted(bytes=12_000), SILENT)
    svg = found.picture()
    finished = [o for o in found.options if o.auc is not None]
    assert svg.count('r="2.6"') == len(finished) + 1 and svg.count(" us<") == len(finished)
    assert f"ring: {told_bytes(found.chosen.bytes)}, {found.chosen.auc:.4f}" in svg
    assert f"float student before it is compressed: {found.student_bytes:,} bytes, {found.student:.4f}" in svg
