import numpy as np
import pytest

from recsys_kd.evaluate.ablation import OneClass, ablation
from recsys_kd.evaluate.ablation_report import render_study, share, write_study
from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.evaluate.metrics import auc
from recsys_kd.evaluate.sample import Sample

USERS, EACH = 300, 20


def world(seed, signals, seeds=3):
    """Return a sample whose labels come of a true logit, and per arm and seed that logit with noise of its own."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(USERS), EACH)
    truth = rng.normal(size=USERS)[user] * 0.5 + rng.normal(size=len(user))
    label = (rng.random(len(user)) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    sample = Sample(label, np.ones(len(user), np.float32), user, np.arange(len(user)) // 5)
    logits = {
        name: [(truth + noise * rng.normal(size=len(user))).astype(np.float32) for _ in range(seeds)]
        for name, noise in signals.items()
    }
    return sample, logits


def test_the_gap_closed_by_hand():
    """Four rows of two users, pairs counted by hand: control 2 of 4, student 3 of 4, teacher 4 of 4."""
    label = np.array([1, 0, 1, 0], dtype=np.float32)
    user = np.array([0, 0, 1, 1])
    sample = Sample(label, np.ones(4, np.float32), user, user)
    scores = {"student": [4, 1, 2, 3], "control": [4, 3, 1, 2], "teacher": [4, 1, 3, 2]}
    found = ablation({n: [np.array(s, np.float32)] for n, s in scores.items()}, sample, [7])
    assert [a.name for a in found.arms] == ["teacher", "control", "student"]
    assert [a.auc.value for a in found.arms] == [1.0, 0.5, 0.75]
    assert found.arm("student").gain.value == 0.25


def test_values_are_means_over_seeds_and_the_gap_is_their_ratio():
    sample, logits = world(0, {"control": 3.0, "student": 2.0, "teacher": 1.0})
    found = ablation(logits, sample, [7, 8, 9])
    value = {n: np.mean([auc(z, sample).value for z in zs]) for n, zs in logits.items()}
    student = found.arm("student")
    assert student.auc.value == pytest.approx(value["student"])
    ratio = (value["student"] - value["control"]) / (value["teacher"] - value["control"])
    assert student.gap.value == pytest.approx(ratio) and 0.2 < ratio < 0.8
    assert student.gap.low < ratio < student.gap.high and student.seeds == tuple(
        auc(z, sample).value for z in logits["student"]
    )
    assert (found.arm("teacher").gap.value, found.arm("control").gap.value) == (1.0, 0.0)


def test_intervals_hold_the_gap_that_is_true_as_often_as_they_say():
    """The true gap, from 40 seeds of one log, against the intervals of 40 other logs with 3 seeds each."""
    signals = {"control": 3.0, "student": 2.0, "teacher": 1.0}
    covered = []
    many = [ablation(logits, sample, range(40), replicates=100) for sample, logits in [world(999, signals, 40)]]
    truth = many[0].arm("student").gap.value
    for seed in range(40):
        sample, logits = world(seed, signals)
        gap = ablation(logits, sample, range(3), replicates=300).arm("student").gap
        covered.append(gap.low <= truth <= gap.high)
    assert np.mean(covered) >= 0.85


def test_no_gap_is_told_where_the_teacher_is_not_shown_to_be_better():
    sample, logits = world(1, {"control": 2.0, "student": 2.0, "teacher": 2.0}, seeds=1)
    found = ablation(logits, sample, [7])
    assert np.isnan(found.arm("student").gap.value) and found.to_json()["arms"][2]["gap"]["value"] is None
    assert share(found.arm("student").gap) == "-"


def test_rows_of_one_class_are_refused():
    sample = Sample(np.ones(4, np.float32), np.ones(4, np.float32), np.arange(4), np.arange(4))
    with pytest.raises(OneClass, match=r"lengthen `split.test_days`"):
        ablation({n: [np.zeros(4, np.float32)] for n in ("teacher", "control")}, sample, [1])


def test_the_page_shows_every_arm_and_escapes_what_the_run_brings(tmp_path):
    sample, logits = world(0, {"control": 3.0, "student": 2.0, "teacher": 1.0})
    found = ablation(logits, sample, [7, 8, 9])
    what = {"teacher": "the teacher itself", "control": "labels alone", "student": "an <arm>"}
    page = render_study("a <b>", found, what, ["seed 7: <i>"], "recsys-kd study distil r.yaml", "2026-01-01")
    gap = found.arm("student").gap
    assert f"{gap.value:.0%} ({gap.low:.0%} to {gap.high:.0%})" in page
    assert "an &lt;arm&gt;" in page and "<b>" not in page and "<i>" not in page and page.count("<circle") == 1
    path = write_study(page, {"x": 1}, tmp_path / "reports")
    assert path.read_text() == page and (tmp_path / "reports" / "study.json").read_text() == '{\n "x": 1\n}'


def test_shares_are_written_with_their_ends_where_there_are_some():
    assert share(Interval(0.52, 0.31, 0.7)) == "52% (31% to 70%)"
    assert share(Interval(0.52, np.nan, np.nan)) == "52%"
