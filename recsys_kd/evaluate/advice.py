"""What to try where the gate held a night back: the last line of its reasons."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, floor, isfinite, log10

from recsys_kd.evaluate.evaluation import Evaluation, Interval
from recsys_kd.evaluate.gate import Check, Verdict, metric_name
from recsys_kd.settings import Recipe

NAME = "next step"
_LESS = {"bytes": "fewer", "keep_rows": "a smaller share", "threshold": "a higher one"}
SMALL_LOG = 400_000
"""Training rows under which more days, or a better start, are worth most."""
_MOST_DAYS = 10.0
"""More than so many times the test days nobody can wait for."""


def with_next_step(verdict: Verdict, recipe: Recipe, evaluation: Evaluation, train_rows: int) -> Verdict:
    """Return a verdict that, where it holds back, ends with what to try, which is not for the gate to judge."""
    advice = list(dict.fromkeys(_advice(verdict, recipe, evaluation, train_rows)))
    if not advice:
        return verdict
    check = Check(NAME, False, None, None, f"next: {'; '.join(advice)}", gates=False)
    return replace(verdict, checks=(*verdict.checks, check))


def _advice(verdict: Verdict, recipe: Recipe, evaluation: Evaluation, train_rows: int) -> Iterator[str]:
    metric = metric_name(recipe.gate, recipe.evaluate.k)
    for check in verdict.checks:
        if check.passed or not check.gates or check.measured is None:
            continue
        if check.name.endswith("against the teacher"):
            yield from _of_teacher(recipe, evaluation, metric, train_rows)
        elif check.name.endswith("against today's champion"):
            delta = evaluation.deltas["served - champion"][metric]
            yield from _too_wide(recipe, "champion_margin", delta)
            if delta.high <= -recipe.gate.champion_margin:
                yield "look at what changed in the log since the champion's night; the champion stays live meanwhile"
        elif check.name == "calibration":
            yield (
                "ECE is put right on the validation days: give split.validation_days more of them, or, where the test "
                "days are unlike them, gate.max_ece more room"
            )
        elif check.name == "size":
            yield _smaller(recipe)


def _smaller(recipe: Recipe) -> str:
    """Return what makes the artifact as small as the gate asks, in terms of the key that the recipe has."""
    asked, given = recipe.gate.min_ratio, recipe.compress
    for name in ("bytes", "keep_rows", "threshold"):
        if getattr(given, name) is not None:
            instead = f", or in its place ratio: {asked:g}" if asked > 1 else ""
            return f"compress.{name}: {getattr(given, name)} leaves more than that: {_LESS[name]}{instead}"
    return f"compress: {{ratio: {asked:g}}} asks for an artifact of that size" if asked > 1 else "fewer compress.bytes"


def _of_teacher(recipe: Recipe, evaluation: Evaluation, metric: str, train_rows: int) -> Iterator[str]:
    delta = evaluation.deltas["served - teacher"][metric]
    yield from _too_wide(recipe, "teacher_margin", delta)
    if delta.value > -recipe.gate.teacher_margin:
        return
    lost = {part: -evaluation.deltas[part][metric].value for part in ("student - teacher", "served - student")}
    if lost["served - student"] > lost["student - teacher"]:
        yield f"compression loses most of it ({lost['served - student']:.4f}): a lower compress.ratio, or more bytes"
        return
    yield f"the student itself loses most of it ({lost['student - teacher']:.4f})"
    if recipe.student.init == "random" and recipe.teacher.kind == "dcnv2":
        yield "`student: {init: auto}` starts its tables from the teacher's"
    if train_rows < SMALL_LOG:
        yield f"more days in the log: {train_rows:,} training rows leave tables undertrained"
    yield "more student.epochs and student.patience"


def _too_wide(recipe: Recipe, name: str, delta: Interval) -> Iterator[str]:
    """Yield what helps where the mean is within the margin and only its interval reaches beyond."""
    margin: float = getattr(recipe.gate, name)
    if delta.value > -margin and isfinite(delta.low):
        times = ((delta.value - delta.low) / (delta.value + margin)) ** 2
        days = "split.column" if recipe.split.column else "split.test_days"
        more = f"some {ceil(times * 10 - 1e-6) / 10:.1f} times the test rows ({days}) would do, or " * (
            times < _MOST_DAYS
        )
        yield (
            f"the loss is within gate.{name} and its interval is too wide to show it: {more}a margin of "
            f"{_up(-delta.low):g}{'' if more else ' would do'}"
        )


def _up(value: float) -> float:
    """Return a number above `value` of two digits."""
    step = 10.0 ** (floor(log10(value)) - 1)
    return round((floor(value / step) + 1) * step, 10)
