"""The plan's choice keeps its limits by measurement; what can't be kept is refused with the nearest that can."""

import pytest

from recsys_kd.compress.plan import BadBudget
from recsys_kd.flow.planning import Option, Planned, Wanted, plan
from recsys_kd.progress import SILENT
from recsys_kd.settings import load_recipe
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
        assert f"plan: fold {fold}, 12,000 bytes: pruning, weighing, timing" in notes.told
    assert sum("fitting once more, scoring" in told for told in notes.told) == 2
    assert {o.fold for o in found.options} == {"item", "field"}
    assert all(0.97 * 12_000 <= o.bytes <= 12_000 and o.p50_us > 0 for o in found.options)
    assert found.chosen.auc == max(o.auc for o in found.options)
    assert found.chosen.loss == pytest.approx(found.student - found.chosen.auc)
    assert f"compress: {{bytes: 12000, fold: {found.chosen.fold}}}" in found.lines()[-1]
    activations = found.chosen.activations
    assert list(activations) == ["15", "8"] and abs(activations["15"]) < 1e-7 and abs(activations["8"]) < 1e-3
    assert (
        f"15 bits {activations['15']:+.1e}, 8 bits" in found.lines()[-2] and "15 bits are served" in found.lines()[-2]
    )
    assert found.chosen.why == "chosen: keeps all limits, and loses least in these bytes"


def test_a_loss_below_0_is_told_to_be_a_gain():
    def lines(loss):
        option = Option("item", 100, 90, {"item": 1}, {"item": 1}, {"item": 4}, 0.1, 5.0, auc=0.7, loss=loss)
        return Planned([option], option, 0.7 + loss, 1000).lines()

    said = "lost below 0 is a gain: pruned and fitted once more, it scores above the float student there"
    assert said in lines(-0.001) and said not in lines(0.001)
    assert "-0.0010" in lines(-0.001)[2]


def test_without_a_budget_the_smallest_that_loses_little_enough_is_chosen(recipe):
    found = plan(recipe, Wanted(loss=0.5), SILENT)
    assert found.chosen.bytes == min(o.bytes for o in found.options if o.fold == found.chosen.fold)
    assert found.chosen.loss <= 0.5 and found.chosen.why.startswith("chosen: the smallest that keeps all limits")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [(Wanted(bytes=12_000, p50_us=0.1), r"no artifact keeps --bytes 12000 --p50-us 0.1 .* takes \d+ us, more"),
     (Wanted(bytes=12_000, loss=-1.0), "the nearest is fold .* give one of them room"),
     (Wanted(bytes=100), "a budget of 100 bytes can't be met: .* bytes are needed")],
)  # fmt: skip
def test_limits_that_can_not_be_kept_are_refused_with_what_comes_nearest(recipe, wanted, words):
    with pytest.raises(BadBudget, match=words):
        plan(recipe, wanted, SILENT)
