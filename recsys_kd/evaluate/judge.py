"""A policy applied to what was measured: checks in words, and the verdict that the registry asks for."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from recsys_kd.evaluate.comparison import Comparison
from recsys_kd.evaluate.effects import NAN
from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.evaluate.gate import Check, Verdict, calibrated, not_worse, verdict_of
from recsys_kd.evaluate.measure import direction
from recsys_kd.evaluate.policy import Policy
from recsys_kd.settings import utc

CANDIDATE = "candidate"
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Facts:
    """What a policy may ask about an artifact beside its metrics."""

    artifact_digest: str
    data_digest: str
    log_digest: str
    bytes: int
    max_bytes: int | None
    p50_us: float
    p99_us: float
    learned_until: int | None
    """ms UTC of the last row that its teacher learned from; None where the artifact does not say."""
    log_until: int
    """ms UTC of the last row of the log."""


def judge(policy: Policy, found: Mapping[str, Comparison], facts: Facts) -> Verdict:
    """Return the verdict. found: model -> comparison of the candidate (treatment) with that model (control)."""
    checks = [c for model in policy.against for c in _against(policy, model, found.get(model))]
    checks += [*_slices(policy, found), *_of_artifact(policy, found, facts)]
    verdict = verdict_of(checks, facts.artifact_digest, facts.data_digest, policy.valid_days, facts.log_digest)
    return replace(verdict, policy=f"{policy.name}, {policy.digest}")


def _against(policy: Policy, model: str, found: Comparison | None) -> list[Check]:
    if found is None:
        return [Check(f"against {model}", False, None, None, f"no {model} was measured, and the policy asks for one")]
    return [
        not_worse(f"{m} against {model}", m, found.effect(CANDIDATE, m).delta, direction(m), margin)
        for m, margin in policy.margins(model).items()
    ]


def _slices(policy: Policy, found: Mapping[str, Comparison]) -> list[Check]:
    wanted = policy.slices
    if wanted is None:
        return []
    comparison = found.get(wanted.against)
    if comparison is None:
        why = f"no {wanted.against} was measured to compare slices with"
        return [Check("slices", False, None, -wanted.margin, why)]
    checks = []
    for part in comparison.slices:
        if part.metric != policy.slice_metric or not wanted.takes(part.slice):
            continue
        sign = direction(part.metric)
        worst, best = sorted((sign * part.difference.low, sign * part.difference.high))
        # A slice is small: unless more is asked, it is held back where it is shown to lose, not where nothing is shown.
        end = worst if wanted.strict else best
        words = "loses more than" if best <= -wanted.margin else "loses no more than"
        if worst <= -wanted.margin < best:
            words = "is not known to lose no more than"
        sentence = (
            f"{part.slice}: {part.metric} {part.difference.value:+.4f} ({part.difference.low:+.4f} to "
            f"{part.difference.high:+.4f}) from the {wanted.against} {words} {wanted.margin:g}"
        )
        checks.append(Check(f"slice {part.slice}", bool(end > -wanted.margin), float(end), -wanted.margin, sentence))
    missing = [n for n in wanted.names if not any(c.name.startswith(f"slice {n}") for c in checks)]
    checks += [Check(f"slice {n}", False, None, None, f"no slice '{n}' could be measured") for n in missing]
    # Slices that were asked for and are too small, all of them, have not been shown to lose nothing.
    why = f"no slice could be measured, and the policy asks that none loses {wanted.margin:g}"
    return checks or [Check("slices", False, None, -wanted.margin, why)]


def _of_artifact(policy: Policy, found: Mapping[str, Comparison], facts: Facts) -> list[Check]:
    checks = []
    if policy.max_ece is not None:
        ece = next((c.metrics[CANDIDATE]["ece"] for c in found.values()), Interval(NAN, NAN, NAN))
        checks.append(calibrated("ECE", ece, policy.max_ece))
    if facts.max_bytes is not None:
        checks.append(_at_most("bytes", "the artifact weighs", facts.bytes, facts.max_bytes, " bytes"))
    limits = (("p50", facts.p50_us, policy.latency.p50_us), ("p99", facts.p99_us, policy.latency.p99_us))
    for name, value, limit in limits:
        if limit is not None:
            checks.append(_at_most(name, f"{name} of 1,000 candidates is", value, limit, " us"))
    if policy.teacher_max_age_days is not None:
        checks.append(_teachers_age(policy.teacher_max_age_days, facts))
    return [*checks, _logs_age(facts)]


def _teachers_age(limit: float, facts: Facts) -> Check:
    """Return the check of the days from the teacher's last row to the log's: what it judges, not today, is the end."""
    if facts.learned_until is None:
        return _at_most("teacher's age", "", NAN, limit, " days")
    age = max(0.0, (facts.log_until - facts.learned_until) / DAY_MS)
    words = f"from the teacher's last row ({utc(facts.learned_until)}) to the log's ({utc(facts.log_until)}) it is"
    return _at_most("teacher's age", words, age, limit, " days")


def _logs_age(facts: Facts) -> Check:
    """Return how old the log is today: told, not judged."""
    age = (dt.datetime.now(dt.UTC).timestamp() * 1000 - facts.log_until) / DAY_MS
    sentence = f"the log's last row is of {utc(facts.log_until)}, {age:,.1f} days ago"
    return Check("log's age", True, round(age, 1), None, sentence, gates=False)


def _at_most(name: str, words: str, value: float, limit: float, unit: str) -> Check:
    """Return a check that fails where the value is not known."""
    if not np.isfinite(value):
        return Check(name, False, None, limit, f"{name} is not known, and the policy allows at most {limit:g}{unit}")
    passed = bool(value <= limit)
    compared = "within" if passed else "above"
    return Check(
        name, passed, float(value), limit, f"{words} {told(value)}{unit}, {compared} the {told(limit)} allowed"
    )


def told(value: float) -> str:
    """Return a measurement as people write it: whole and large numbers with all of their digits, others with three."""
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"
