import numpy as np
import pytest
import torch
from torch import nn

from recsys_kd.distil.loop import NothingToTrainOn, TrainingDiverged, auc, score_rows, train, validation_metrics
from recsys_kd.distil.student_training import fit_student
from recsys_kd.distil.teacher_training import fit_teacher
from recsys_kd.progress import SILENT
from recsys_kd.settings import DistilConfig, StudentConfig, TeacherConfig

STUDENT = StudentConfig(width=4, hidden=(8, 4), epochs=2, batch_size=512)
TEACHER = TeacherConfig(width=16, hidden=(32,), cross_rank=8, epochs=2, batch_size=512)


def run(model, losses, validations, **more):
    validation = iter(validations)
    return train(
        model, lambda batch: losses, lambda epoch, skip: [[0] * 4], lambda: next(validation),
        epochs=9, patience=1, rows=4, progress=SILENT, name="m", **more,
    )  # fmt: skip


def test_training_stops_after_patience_and_restores_the_best_epoch():
    model = nn.Linear(1, 1, bias=False)
    seen = []

    def validate():
        with torch.no_grad():
            model.weight.fill_(len(seen))
        seen.append([0.7, 0.9, 0.8, 0.95][len(seen)])
        return 0.5, seen[-1]

    fit = train(
        model,
        lambda batch: 0.1,
        lambda epoch, skip: [[0]],
        validate,
        epochs=9,
        patience=1,
        rows=1,
        progress=SILENT,
        name="m",
    )
    assert (len(fit.epochs), fit.best) == (3, 1)
    assert float(model.weight.detach()) == 1.0


def test_divergence_and_no_rows_are_named():
    with pytest.raises(TrainingDiverged, match="m: the loss is nan in epoch 1"):
        run(nn.Linear(1, 1), float("nan"), [])
    with pytest.raises(NothingToTrainOn):
        train(
            nn.Linear(1, 1),
            len,
            lambda epoch, skip: [],
            lambda: (0, 0),
            epochs=1,
            patience=1,
            rows=0,
            progress=SILENT,
            name="m",
        )


def test_auc_by_hand():
    # pairs (0.8 > 0.3), (0.8 > 0.8 tie), (0.4 > 0.3), (0.4 < 0.8): (1 + 0.5 + 1 + 0) / 4.
    score, label = torch.tensor([0.8, 0.4, 0.3, 0.8]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert auc(score, label) == 0.625
    assert np.isnan(auc(score, torch.ones(4)))


def student(dataset, soft=None, seed=3):
    return fit_student(
        dataset, STUDENT, DistilConfig(), soft,
        rows=dataset.splits["train"], validation=dataset.splits["validation"], seed=seed,
    )  # fmt: skip


def test_a_student_learns_and_is_the_same_for_a_seed(dataset):
    a, b = student(dataset), student(dataset)
    rows = dataset.splits["test"]
    assert validation_metrics(a.model, dataset, rows)[1] > 0.6
    assert np.array_equal(score_rows(a.model, dataset, rows), score_rows(b.model, dataset, rows))


def test_soft_labels_move_the_student_and_missing_ones_do_not(dataset):
    rows = dataset.splits["test"]
    none = np.full(len(dataset), np.nan, dtype=np.float32)
    control, unknown = student(dataset), student(dataset, none)
    assert np.allclose(score_rows(control.model, dataset, rows), score_rows(unknown.model, dataset, rows), atol=1e-5)
    taught = student(dataset, np.where(np.arange(len(dataset)) % 2, 3.0, -3.0).astype(np.float32))
    assert not np.allclose(score_rows(control.model, dataset, rows), score_rows(taught.model, dataset, rows), atol=1e-2)


def test_a_teacher_learns_saves_and_loads(dataset, tmp_path):
    fitted = fit_teacher(dataset, TEACHER, dataset.splits["train"], dataset.splits["validation"], 3)
    rows = dataset.splits["test"]
    assert validation_metrics(fitted.model, dataset, rows)[1] > 0.6
    digest = fitted.model.save(tmp_path / "teacher")
    loaded = type(fitted.model).load(tmp_path / "teacher")
    assert np.array_equal(score_rows(loaded, dataset, rows), score_rows(fitted.model, dataset, rows))
    assert loaded.save(tmp_path / "again") == digest
