"""The gate: may this artifact go live? Every check says in words what was measured and what was asked for."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys_kd.evaluate.evaluation import Evaluation, Interval
from recsys_kd.evaluate.verdict import Check, Verdict
from recsys_kd.settings import GateConfig

__all__ = ["Check", "Subject", "Verdict", "calibrated", "decide", "metric_name", "not_worse", "verdict_of"]

UNTAUGHT = "teacher"
"""Name of the line that says why a night's student is the control; no other check is called so."""
VALID_DAYS = 7
"""A verdict speaks for the night it was made on; after a week it must be made again."""


@dataclass(frozen=True)
class Subject:
    """What is judged: digests and bytes; `champion` tells whether one was measured beside it."""

    artifact_digest: str
    data_digest: str
    artifact_bytes: int
    teacher_bytes: int
    champion: bool


def metric_name(config: GateConfig, ks: tuple[int, ...]) -> str:
    """Return the metric the gate looks at, e.g. `ndcg@10` (the first k of the recipe)."""
    return config.metric if config.metric in ("auc", "gauc") else f"{config.metric}@{ks[0]}"


def not_worse(name: str, what: str, delta: Interval, sign: int, margin: float) -> Check:
    """Return the non-inferiority check: the interval's worse end, not the mean, must lie within the margin.

    what: `served auc` or the like; sign: 1 where more is better. `name` is the check's, `metric against model`.
    """
    worst = min(sign * delta.low, sign * delta.high)
    passed = bool(worst > -margin)
    best = max(sign * delta.low, sign * delta.high)
    words = "stays within" if passed else "may fall outside" if best > -margin else "is outside"
    told = name.split(" against ", 1)[1]
    than = told if told.startswith(("the ", "today's ")) else f"the {told}"
    sentence = (
        f"{what} is {delta.value:+.4f} from {than} ({delta.low:+.4f} to {delta.high:+.4f}): "
        f"it {words} the margin of {margin:g}"
    )
    return Check(name, passed, float(worst), -margin, sentence)


def calibrated(what: str, ece: Interval, limit: float) -> Check:
    """Return the calibration check: held back where ECE is shown to lie above the limit, at its interval's lower end.

    The mean can't decide: chance alone lifts ECE over 0.02 on a log of 4,000 rows 95 times in 100. NaN fails.
    """
    if not np.isfinite(ece.low):
        return Check("calibration", False, None, limit, f"calibration is not known, and {limit:g} ECE are allowed")
    passed = ece.low <= limit
    words = f"within {limit:g}" if ece.value <= limit else f"not shown to be above {limit:g}"
    sentence = f"{what} {ece.value:.4f} ({ece.low:.4f} to {ece.high:.4f}) is {words if passed else f'above {limit:g}'}"
    return Check("calibration", passed, float(ece.low), limit, sentence)


def verdict_of(
    checks: Sequence[Check],
    artifact_digest: str,
    data_digest: str,
    valid_days: float = VALID_DAYS,
    log_digest: str = "",
) -> Verdict:
    """Return the verdict of some checks, as of now."""
    now = dt.datetime.now(dt.UTC)
    return Verdict(
        all(c.passed for c in checks if c.gates),
        tuple(checks),
        artifact_digest,
        data_digest,
        now.isoformat(timespec="seconds"),
        (now + dt.timedelta(days=valid_days)).isoformat(timespec="seconds"),
        log_digest,
    )


def _small_enough(subject: Subject, ratio: float) -> Check:
    value = subject.teacher_bytes / subject.artifact_bytes
    words = "at least" if value >= ratio else "less than"
    sentence = f"the artifact is {value:.1f} times smaller than the teacher, {words} the {ratio:g} asked for"
    return Check("size", value >= ratio, value, ratio, sentence)


def _distillation_pays(evaluation: Evaluation, metric: str) -> Check:
    delta = evaluation.deltas["served - control served"][metric]
    if delta.value == delta.low == delta.high == 0:
        words = "both score alike"
    elif delta.low > 0:
        words = "distillation pays"
    elif delta.high < 0:
        words = "the control, without teacher, is better: look at student - control, and at the teacher's age"
    else:
        words = "too close to call on this log"
    between = f"({delta.low:+.4f} to {delta.high:+.4f})"
    sentence = f"served {metric} is {delta.value:+.4f} from the control of the same bytes {between}: {words}"
    return Check("against control", delta.low > 0, delta.value, 0.0, sentence, gates=False)


def decide(config: GateConfig, evaluation: Evaluation, subject: Subject, ks: tuple[int, ...]) -> Verdict:
    """Return the verdict; needs the deltas of `served` to teacher, control and, where there is one, champion.

    Non-inferiority: the interval's lower end, not the mean, must lie above minus the margin.
    """
    metric = metric_name(config, ks)
    rivals = [("teacher", "the teacher", config.teacher_margin)]
    if subject.champion:
        rivals.append(("champion", "today's champion", config.champion_margin))
    checks = [
        not_worse(
            f"{metric} against {told}", f"served {metric}", evaluation.deltas[f"served - {than}"][metric], 1, margin
        )
        for than, told, margin in rivals
    ]
    if metric in evaluation.uninformative:
        why = f"{metric} can't decide: {evaluation.uninformative[metric]}; take another gate.metric or a smaller k"
        checks = [Check(f"{metric} against {told}", False, None, -margin, why) for _, told, margin in rivals]
    checks += [calibrated("served ECE", evaluation.metrics["served"]["ece"], config.max_ece)]
    checks += [_small_enough(subject, config.min_ratio), _distillation_pays(evaluation, metric)]
    return verdict_of(checks, subject.artifact_digest, subject.data_digest)
