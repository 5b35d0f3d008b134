"""What a student may learn from: ensembles, slices, rounds, and its teacher's tables to start from."""

from pathlib import Path

import numpy as np
import pytest

from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.loop import score_rows
from recsys_kd.distil.mixing import fit_gate
from recsys_kd.distil.soft_labels import fold_of, load_soft_labels
from recsys_kd.flow import training
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.checks import NoFeatures, check_teacher
from recsys_kd.flow.models import calibrated_soft_labels, load_student
from recsys_kd.flow.night import read
from recsys_kd.flow.starts import start_of
from recsys_kd.models.student import Student
from recsys_kd.models.teacher import Teacher
from recsys_kd.progress import SILENT
from recsys_kd.settings import TeacherConfig, load_recipe, parse_recipe
from tests.conftest import quick

COMPARED = 500


@pytest.fixture(scope="module")
def recipe(shop, tmp_path_factory):
    return quick(load_recipe(shop.recipe), tmp_path_factory.mktemp("lessons"))


@pytest.fixture(scope="module")
def night(recipe) -> tuple[Stages, Dataset, str]:
    stages = Stages(recipe.work, SILENT)
    dataset, key = read(recipe, stages)
    return stages, dataset, training.log_key(recipe, key)


@pytest.fixture(scope="module")
def lesson(recipe, night):
    stages, dataset, log = night
    return training.teach(recipe, dataset, log, stages)


def changed(recipe, section, **update):
    return recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=update)})


def test_an_ensembles_label_is_the_mean_of_its_members_logits(recipe, night, tmp_path):
    _, dataset, log = night
    two = changed(recipe, "soft_labels", members=2, protocol="in_sample")
    folder = training.teach(two, dataset, log, Stages(tmp_path, SILENT)).folders["soft labels"]
    members = [Teacher.load(path) for path in sorted(folder.glob("teacher-*"))]
    assert len(members) == 2 == two.soft_labels.teachers
    rows = dataset.splits["train"]
    row_id = dataset.column("row_id")[rows.start : rows.stop].astype(np.int64)
    labels = load_soft_labels(folder / "soft_labels.parquet", row_id, dataset.schema.fingerprint)
    each = [score_rows(m, dataset, range(COMPARED)) for m in members]
    assert labels[:COMPARED] == pytest.approx(np.mean(each, axis=0), abs=1e-5)
    assert np.abs(each[0] - each[1]).mean() > 0.01  # members are not one teacher twice


def test_a_gate_weighs_an_ensembles_members_for_every_sample(recipe, night, tmp_path):
    _, dataset, log = night
    two = changed(recipe, "soft_labels", members=2, mix="gated", blocks=2)
    folder = training.teach(two, dataset, log, Stages(tmp_path, SILENT)).folders["soft labels"]
    rows = dataset.splits["train"]
    row_id, label = (np.asarray(dataset.column(c)[rows.start : rows.stop]) for c in ("row_id", "label"))
    fingerprint = dataset.schema.fingerprint
    found = load_soft_labels(folder / "soft_labels.parquet", row_id.astype(np.int64), fingerprint)
    assert np.isfinite(found).all()
    request = np.asarray(dataset.column("request")[rows.start : rows.stop], dtype=np.int64)
    fold = fold_of(request, two.soft_labels.blocks, recipe.seed)
    members = [Teacher.load(path) for path in sorted(folder.glob("teacher-*"))]  # two of each fold
    each = np.empty((len(rows), 2), dtype=np.float32)
    for i in range(2):
        mine = np.flatnonzero(fold == i)
        each[mine] = np.stack([score_rows(m, dataset, mine) for m in members[2 * i : 2 * i + 2]], axis=1)
    gate = fit_gate(each, label.astype(np.float32), np.ones(len(rows), dtype=np.float32))
    assert found == pytest.approx(gate(each), abs=1e-4)
    assert np.ptp(gate.weights(each)[:, 0]) > 0  # not the same weights for every row


def test_labels_of_a_slice_agree_with_its_clicks(recipe, night, lesson):
    _, dataset, _ = night
    rows = dataset.splits["train"]
    label = np.asarray(dataset.column("label"))[: rows.stop]
    for field in ("device", "category"):  # of the request, and of the item
        of_row = dataset.category(field)[: rows.stop]
        plain, sliced = (
            calibrated_soft_labels(dataset, lesson.folders["soft labels"], 0, s)[: rows.stop] for s in ((), (field,))
        )
        gaps = []
        for found in (plain, sliced):
            p = 1 / (1 + np.exp(-found))
            gaps.append([abs(p[of_row == v].mean() - label[of_row == v].mean()) for v in np.unique(of_row)])
        assert np.mean(gaps[1]) < 0.7 * np.mean(gaps[0])


def test_a_second_round_learns_from_students_that_never_saw_the_rows_they_label(recipe, night, lesson):
    stages, dataset, log = night
    again = changed(recipe, "distil", rounds=2, assistant_width=6)
    second = training.teach(again, dataset, log, stages)
    assert second.key != lesson.key and second.folders["soft labels"] == lesson.folders["soft labels"]
    labels = second.folders["labels"]
    assert labels.name.startswith("assistant-labels-") and labels != lesson.folders["labels"]
    known = np.isfinite(second.soft)
    assert np.array_equal(known, np.isfinite(lesson.soft)) and known.any()
    assert np.corrcoef(second.soft[known], lesson.soft[known])[0, 1] > 0.5
    assert not np.allclose(second.soft[known], lesson.soft[known], atol=0.01)
    rows = dataset.splits["validation"]
    label = np.asarray(dataset.column("label")[rows.start : rows.stop])
    said = second.assistants.score(dataset.batch(slice(rows.start, rows.stop)))
    assert lesson.assistants is None and np.isnan(second.assistants.score(dataset.batch(slice(0, 9)))).all()
    assert said[label > 0.5].mean() > said[label < 0.5].mean() + 0.1
    folder = training.train_student(again, dataset, log, second, stages)
    assert load_student(again, dataset.schema, folder)[0].width == recipe.student.width


def test_a_student_starts_with_the_teachers_pairwise_products(recipe, night, lesson):
    _, dataset, _ = night
    wide = changed(recipe, "student", init="teacher_pca", width=recipe.teacher.width)
    start = start_of(wide, dataset, lesson.folders["teacher"])
    teacher = Teacher.load(lesson.folders["teacher"] / "teacher")
    student = Student(dataset.schema, wide.student)
    student.start_from(start)
    batch = dataset.batch(slice(0, 40))
    e = student(batch).features.embeddings
    t = teacher.features(batch).embeddings
    for a, b in (("user_id", "item_id"), ("history", "brand")):
        wanted = float(teacher.pair_scale) * (t[a] * t[b]).sum(1).numpy()
        assert (e[a] * e[b]).sum(1).detach().numpy() == pytest.approx(wanted, abs=2e-3 * max(1, np.abs(wanted).max()))
    assert start_of(changed(recipe, "student", init="random"), dataset, lesson.folders["teacher"]) is None
    auto = changed(wide, "student", init="auto")
    found = start_of(auto, dataset, lesson.folders["teacher"])
    assert all(np.array_equal(found[name], rows) for name, rows in start.items())
    plugged = changed(auto, "teacher", kind="shops-own")
    assert start_of(plugged, dataset, lesson.folders["teacher"]) is None
    assert start_of(wide, dataset, None) is None


def test_the_control_always_starts_by_chance(recipe, night, lesson):
    stages, dataset, log = night
    plain = training.train_control(recipe, dataset, log, stages)
    assert training.train_control(changed(recipe, "student", init="teacher_pca"), dataset, log, stages) == plain


def test_what_has_no_tables_gives_no_start_and_slices_are_categories(recipe, shop):
    logged = recipe.model_copy(update={"teacher": TeacherConfig(kind="precomputed", column="x")})
    with pytest.raises(NoFeatures, match=r"student.init: `teacher_pca` needs the teacher's tables"):
        check_teacher(changed(logged, "student", init="teacher_pca"))
    data = {"path": "log", "fields": [{"name": "price", "side": "item", "kind": "dense"}]}
    wrong = {"name": "s", "data": data, "soft_labels": {"slices": ["price"]}}
    with pytest.raises(Exception, match=r"soft_labels.slices: 'price' is no categorical field") as found:
        parse_recipe(wrong, "r.yaml", Path())
    assert found.value.exit_code == 2


def test_a_gate_needs_members_and_rows_that_they_have_not_learned():
    for soft, why in (
        ({"mix": "gated"}, "chooses among teachers, and members is 1"),
        ({"mix": "gated", "members": 2, "protocol": "in_sample"}, "fitted to rows that no teacher has learned"),
    ):
        with pytest.raises(Exception, match=why):
            parse_recipe({"name": "s", "data": {"path": "log"}, "soft_labels": soft}, "r.yaml", Path())
