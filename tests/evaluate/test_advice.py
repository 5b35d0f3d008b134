"""A night that is held back says what to try."""

import pytest

from recsys_kd.evaluate.advice import NAME, with_next_step
from recsys_kd.evaluate.evaluation import Evaluation, Interval
from recsys_kd.evaluate.gate import Subject, decide
from recsys_kd.evaluate.report import render
from recsys_kd.settings import parse_recipe
from tests.evaluate.test_gate_and_report import report

MARGIN = 0.01


def judged(tmp_path, deltas, ece=0.01, ratio=30.0, rows=40_000, **recipe):
    """Return a verdict with its advice; deltas: "a - b" -> (AUC, half-width)."""
    loaded = parse_recipe({"name": "s", "data": {"path": "log"}, **recipe}, "r.yaml", tmp_path)
    between = {name: {"auc": Interval(v, v - half, v + half)} for name, (v, half) in deltas.items()}
    between["served - control served"] = {"auc": Interval(0.0, -0.1, 0.1)}
    metrics = {"served": {"ece": Interval(ece, ece, ece)}}
    found = Evaluation(1000, 50, 100, 0.3, 0.95, metrics, between, {}, ())
    subject = Subject("a" * 64, "d" * 64, 1000, int(1000 * ratio), "served - champion" in deltas)
    return with_next_step(decide(loaded.gate, found, subject, (10,)), loaded, found, rows)


def advice(*arguments, **more):
    last = judged(*arguments, **more).checks[-1]
    assert last.name == NAME and not last.gates and last.sentence.startswith("next: ")
    return last.sentence


def lost(student, served, half=0.001):
    """Return the deltas of a student that lost so much to its teacher, and was served with so much less."""
    return {
        "student - teacher": (-student, half), "served - student": (-served, half),
        "served - teacher": (-student - served, half),
    }  # fmt: skip


def test_a_night_that_passes_needs_no_advice(tmp_path):
    verdict = judged(tmp_path, lost(0.001, 0.001))
    assert verdict.passed and NAME not in {c.name for c in verdict.checks}


def test_an_undertrained_student_is_told_to_start_from_its_teacher_and_to_see_more_days(tmp_path):
    said = advice(tmp_path, lost(0.03, 0.002))
    assert "the student itself loses most of it (0.0300)" in said and "`student: {init: auto}`" in said
    assert "40,000 training rows leave tables undertrained" in said and "compress" not in said
    large = advice(tmp_path, lost(0.03, 0.002), rows=10_000_000, student={"init": "auto"})
    assert "init" not in large and "undertrained" not in large and "student.epochs" in large


def test_a_student_that_compression_cost_most_is_told_to_take_more_bytes(tmp_path):
    said = advice(tmp_path, lost(0.002, 0.03))
    assert "compression loses most of it (0.0300): a lower compress.ratio, or more bytes" in said
    assert "init" not in said


def test_an_interval_that_is_too_wide_names_the_days_and_the_margin_that_would_do(tmp_path):
    # -0.002 +- 0.016 within 0.01: twice as wide as the 0.008 that are left, so four times the days.
    said = advice(tmp_path, lost(0.001, 0.001, half=0.016))
    assert "some 4.0 times the test rows (split.test_days) would do, or a margin of 0.019" in said
    assert judged(tmp_path, lost(0.001, 0.001, half=0.016), gate={"teacher_margin": 0.019}).passed
    # -0.002 +- 0.0081: the square of 1.01, told as a number that is enough.
    assert "some 1.1 times the test rows" in advice(tmp_path, lost(0.001, 0.001, half=0.0081))
    # -0.002 +- 0.04: 25 times the days are no advice.
    said = advice(tmp_path, lost(0.001, 0.001, half=0.04))
    assert "too wide to show it: a margin of 0.043 would do" in said and "times the test" not in said


@pytest.mark.parametrize(
    ("value", "words"), [(-0.05, "look at what changed in the log"), (-0.001, "gate.champion_margin and its interval")]
)
def test_a_loss_to_the_champion_is_told_apart_from_a_doubt(tmp_path, value, words):
    deltas = {**lost(0.001, 0.001), "served - champion": (value, 0.004)}
    assert words in advice(tmp_path, deltas)


def test_calibration_and_size_name_their_keys(tmp_path):
    assert "split.validation_days" in advice(tmp_path, lost(0.001, 0.001), ece=0.5)
    assert "compress: {ratio: 50}" in advice(tmp_path, lost(0.001, 0.001), gate={"min_ratio": 50})


def test_a_size_is_asked_for_by_the_key_that_the_recipe_has(tmp_path):
    def said(**compress):
        return advice(tmp_path, lost(0.001, 0.001), gate={"min_ratio": 50}, compress=compress)

    assert "compress.bytes: 9KB leaves more than that: fewer, or in its place ratio: 50" in said(bytes="9KB")
    assert "compress.keep_rows: 0.5 leaves more than that: a smaller share" in said(keep_rows=0.5)
    assert "ratio" not in advice(tmp_path, lost(0.001, 0.001), ratio=0.5)


def test_the_report_shows_the_next_step(tmp_path):
    verdict = judged(tmp_path, lost(0.03, 0.002))
    assert "next: the student itself loses most of it (0.0300)" in render(report(verdict=verdict.to_json()))
