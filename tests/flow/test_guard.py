"""A teacher that is not to be believed: the run says so, and the student is the control."""

import numpy as np
import pytest

from recsys_kd.data.dataset import Dataset
from recsys_kd.data.evidence import of_dataset
from recsys_kd.evaluate.gate import Verdict
from recsys_kd.flow import guard
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.checks import NoFeatures, NoSuchAge, NothingToBag, check_teacher
from recsys_kd.flow.decidable import check_decidable
from recsys_kd.flow.models import LoggedTeacher, NotLogits, calibrated_soft_labels, logged_logits
from recsys_kd.flow.night import read
from recsys_kd.flow.training import train
from recsys_kd.progress import SILENT
from recsys_kd.settings import DistilConfig, Recipe, SoftLabelConfig, TeacherConfig, load_recipe
from tests.conftest import quick


@pytest.fixture(scope="module")
def recipe(shop, tmp_path_factory):
    return quick(load_recipe(shop.recipe), tmp_path_factory.mktemp("guard"))


def logged(recipe: Recipe, **teacher) -> Recipe:
    config = TeacherConfig(kind="precomputed", column="propensity", scores="probability", **teacher)
    return recipe.model_copy(update={"teacher": config, "compress": type(recipe.compress)(keep_rows=0.5)})


def knowing(dataset: Dataset, signal: float, seed: int = 0) -> LoggedTeacher:
    """Return a teacher whose logits know this much of every row's label."""
    label = np.asarray(dataset.column("label"), dtype=np.float32)
    noise = np.random.default_rng(seed).normal(size=len(label))
    return LoggedTeacher(dataset, (signal * label + noise).astype(np.float32))


def test_a_teacher_no_better_than_the_control_is_told_with_both_figures(recipe, dataset):
    weak, strong = knowing(dataset, 0.2), knowing(dataset, 1.0, seed=1)
    assert guard.no_better(recipe, dataset, strong, weak) is None
    reason = guard.no_better(recipe, dataset, weak, strong)
    rows = dataset.splits["validation"]
    figures = [
        guard.auc_of(dataset, np.arange(rows.start, rows.stop), m.logits[rows.start : rows.stop])
        for m in (weak, strong)
    ]
    assert f"AUC {figures[0]:.4f} and {figures[1]:.4f}, {figures[0] - figures[1]:+.4f} (" in reason
    assert guard.no_better(recipe, dataset, weak, weak) is not None  # equal is not better


def test_assistants_no_better_than_the_control_are_not_believed_either(recipe, dataset):
    teacher, control = knowing(dataset, 2.0), knowing(dataset, 1.0, seed=1)
    soft = np.zeros(len(dataset), dtype=np.float32)
    assert guard.why_untaught(recipe, dataset, teacher, control, soft) is None
    assert guard.why_untaught(recipe, dataset, teacher, control, soft, knowing(dataset, 1.5, seed=2)) is None
    reason = guard.why_untaught(recipe, dataset, teacher, control, soft, knowing(dataset, 0.2, seed=2))
    assert reason.startswith("the last round's assistants are no better than the control on validation: AUC 0.")
    assert reason.endswith("; the student was trained as the control")


def test_a_teacher_is_compared_with_the_control_by_the_rows_weights(recipe, dataset, monkeypatch):
    whole, column = dataset.splits["validation"], Dataset.column
    every = np.arange(whole.start, whole.stop)
    weight = np.where(np.arange(len(dataset)) % 3 == 0, 9.0, 0.0).astype(np.float32)
    logit = knowing(dataset, 1.0).logits
    counted = guard.auc_of(dataset, every[every % 3 == 0], logit[every[every % 3 == 0]])
    assert guard.auc_of(dataset, every, logit[every]) != pytest.approx(counted, abs=1e-3)
    monkeypatch.setattr(Dataset, "column", lambda self, name: weight if name == "weight" else column(self, name))
    assert guard.auc_of(dataset, every, logit[every]) == pytest.approx(counted, abs=1e-12)


def test_logged_scores_that_know_their_rows_by_heart_are_not_believed(recipe, dataset):
    told = logged(recipe)
    honest, rows = knowing(dataset, 1.0), dataset.splits["train"]
    soft = np.full(len(dataset), np.nan, dtype=np.float32)
    soft[rows.start : rows.stop] = honest.logits[rows.start : rows.stop]
    assert guard.learned_by_heart(told, dataset, honest, soft) is None
    soft[rows.start : rows.stop] += 9 * np.asarray(dataset.column("label")[rows.start : rows.stop])
    assert "learned them by heart" in guard.learned_by_heart(told, dataset, honest, soft)
    assert guard.learned_by_heart(recipe, dataset, honest, soft) is None  # a night's own teachers never saw their rows


def test_an_old_teacher_is_told_with_its_age(recipe, dataset):
    first = int(dataset.column("timestamp")[dataset.splits["validation"].start])
    day = np.datetime64(first, "ms").astype("datetime64[D]") - 10
    young, old = (logged(recipe, trained_until=day.item(), max_age_days=limit) for limit in (12, 9))
    assert guard.too_old(young, dataset) is None
    age = (first - int(day.astype("datetime64[ms]").astype(np.int64))) / 86_400_000
    assert f"learned until {day}, {age:.1f} days before validation" in guard.too_old(old, dataset)
    assert "`teacher.max_age_days` allows 9" in guard.too_old(old, dataset)


def test_scores_that_no_model_gives_are_refused(recipe, dataset, monkeypatch):
    scores = np.where(np.arange(len(dataset)) % 100, 1.0, -1e30).astype(np.float32)
    monkeypatch.setattr(Dataset, "column", lambda self, name: scores)
    told = recipe.model_copy(update={"teacher": TeacherConfig(kind="precomputed", column="s")})
    with pytest.raises(
        NotLogits, match=r"^teacher.column: 's' holds 300 values beyond .* the largest 1e\+30, so"
    ) as no:
        logged_logits(dataset, told)
    assert no.value.exit_code == 2
    scores = np.where(np.arange(len(dataset)) % 100, 1.0, np.nan).astype(np.float32)  # rows without a score
    assert np.array_equal(logged_logits(dataset, told), scores, equal_nan=True)


def test_a_teacher_that_has_learned_every_training_row_is_told_by_plan_and_night(recipe, dataset):
    splits = of_dataset(dataset)
    last = np.datetime64(splits["train"].last, "ms").astype("datetime64[D]")
    for after, words in ((0, 0), (1, 1)):
        told = check_decidable(logged(recipe, trained_until=(last + after).item()), splits)
        assert sum(f"all training rows ({splits['train'].days}) lie before it" in w for w in told) == words


def test_rows_that_taught_the_teacher_get_no_soft_labels(recipe, tmp_path):
    stages = Stages(recipe.work, SILENT)
    first = logged(recipe)
    dataset, key = read(first, stages)
    times = dataset.column("timestamp")[: dataset.splits["train"].stop]
    day = np.datetime64(int(times[len(times) // 2]), "ms").astype("datetime64[D]")
    until = int(day.astype("datetime64[ms]").astype(np.int64))
    train(first, dataset, key, stages)
    folder = next(recipe.work.glob("soft-labels-*"))
    soft = calibrated_soft_labels(dataset, folder, until)[: len(times)]
    assert 0 < (times < until).sum() < len(times)
    assert np.array_equal(np.isnan(soft), np.asarray(times) < until)
    told = guard.why_untaught(
        logged(recipe, trained_until=(day + 90).item()), dataset, knowing(dataset, 1), knowing(dataset, 1),
        calibrated_soft_labels(dataset, folder, until + 90 * 86_400_000),
    )  # fmt: skip
    assert f"learned until {day + 90}, so from every training row" in told


def test_a_run_falls_back_to_the_control_and_says_so(recipe):
    said = []

    class Told(type(SILENT)):
        def note(self, message):
            said.append(message)

    stages = Stages(recipe.work, Told())
    plain = logged(recipe)
    dataset, key = read(plain, stages)
    found = train(plain, dataset, key, stages)
    assert found.folders["student"] == found.folders["control"] and found.soft is None
    assert "no better than the control on validation" in found.untaught
    assert f"warning: {found.untaught}" in said
    batch = dataset.batch(slice(0, 50))
    assert np.array_equal(found.student.model.score(batch), found.control.model.score(batch))
    verdict = guard.with_reason(Verdict(True, (), "a", "d", "", ""), found.untaught)
    assert verdict.passed and verdict.checks[0].sentence == found.untaught and not verdict.checks[0].gates
    assert guard.with_reason(verdict, None) is verdict


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"teacher": TeacherConfig(kind="precomputed", column="x"), "soft_labels": SoftLabelConfig(members=2)},
            NothingToBag,
            "soft_labels.members: got 2, which says how teachers are trained",
        ),
        (
            {"teacher": TeacherConfig(kind="precomputed", column="x"), "soft_labels": SoftLabelConfig(blocks=2)},
            NothingToBag,
            "soft_labels.blocks: got 2, which says how teachers are trained",
        ),
        (
            {"distil": DistilConfig(losses={"soft_bce": 1.0, "hidden_hint": 0.5})},
            NoFeatures,
            "`hidden_hint` looks inside",
        ),
        ({"teacher": TeacherConfig(trained_until="2026-01-01")}, NoSuchAge, "is trained by the night"),
        (
            {"teacher": TeacherConfig(kind="precomputed", column="x", max_age_days=3)},
            NoSuchAge,
            "teacher.max_age_days: give the day",
        ),
    ],
)
def test_what_a_teacher_can_not_do_is_refused_before_any_work(recipe, change, error, words):
    with pytest.raises(error, match=words) as found:
        check_teacher(logged(recipe).model_copy(update=change))
    assert found.value.exit_code == 2
