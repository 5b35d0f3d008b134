"""The gate: may this artifact go live? Every check says in words what was measured and what was asked for."""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

from recsys_kd.evaluate.evaluation import Evaluation
from recsys_kd.settings import GateConfig

VALID_DAYS = 7
"""A verdict speaks for the night it was made on; after a week it must be made again."""


@dataclass(frozen=True)
class Check:
    """One condition, its measurement and limit; `gates` is False for what is only reported."""

    name: str
    passed: bool
    measured: float | None
    limit: float | None
    sentence: str
    gates: bool = True


@dataclass(frozen=True)
class Verdict:
    """Whether an artifact may be promoted, bound to its digest and the data it was measured on."""

    passed: bool
    checks: tuple[Check, ...]
    artifact_digest: str
    data_digest: str
    created: str
    expires: str
    log_digest: str = ""
    """Digest of the log it was measured on, where that is not the one that the artifact was made from."""

    @property
    def measured_on(self) -> str:
        """Digest of the log it was measured on."""
        return self.log_digest or self.data_digest

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Verdict":
        """Rebuild from `to_json`."""
        return Verdict(**{**data, "checks": tuple(Check(**c) for c in data["checks"])})


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


def _not_worse(evaluation: Evaluation, than: str, metric: str, margin: float, label: str) -> Check:
    delta = evaluation.deltas[f"served - {than}"][metric]
    passed = delta.low > -margin
    words = "stays within" if passed else "may fall outside"
    sentence = (
        f"served {metric} is {delta.value:+.4f} from {label} "
        f"({evaluation.confidence:.0%} interval {delta.low:+.4f} to {delta.high:+.4f}): "
        f"it {words} the margin of {margin:g}"
    )
    return Check(f"{metric} against {label}", bool(passed), delta.low, -margin, sentence)


def _calibrated(evaluation: Evaluation, limit: float) -> Check:
    value = evaluation.metrics["served"]["ece"].value
    words = "within" if value <= limit else "above"
    return Check("calibration", value <= limit, value, limit, f"served ECE {value:.4f} is {words} {limit:g}")


def _small_enough(subject: Subject, ratio: float) -> Check:
    value = subject.teacher_bytes / subject.artifact_bytes
    words = "at least" if value >= ratio else "less than"
    sentence = f"the artifact is {value:.1f} times smaller than the teacher, {words} the {ratio:g} asked for"
    return Check("size", value >= ratio, value, ratio, sentence)


def _distillation_pays(evaluation: Evaluation, metric: str) -> Check:
    delta = evaluation.deltas["served - control served"][metric]
    if delta.low > 0:
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
    checks = [_not_worse(evaluation, "teacher", metric, config.teacher_margin, "the teacher")]
    if subject.champion:
        checks.append(_not_worse(evaluation, "champion", metric, config.champion_margin, "today's champion"))
    checks += [_calibrated(evaluation, config.max_ece), _small_enough(subject, config.min_ratio)]
    checks.append(_distillation_pays(evaluation, metric))
    now = dt.datetime.now(dt.UTC)
    return Verdict(
        all(c.passed for c in checks if c.gates),
        tuple(checks),
        subject.artifact_digest,
        subject.data_digest,
        now.isoformat(timespec="seconds"),
        (now + dt.timedelta(days=VALID_DAYS)).isoformat(timespec="seconds"),
    )
