"""The gate outside a night: an artifact on a log against teacher, control and today's champion, by a policy file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recsys_kd.errors import InputError, OutsideError
from recsys_kd.evaluate.comparison import Comparison, compare
from recsys_kd.evaluate.gate import Verdict
from recsys_kd.evaluate.judge import CANDIDATE, Facts, judge
from recsys_kd.evaluate.policy import Policy
from recsys_kd.evaluate.slices import slice_effects
from recsys_kd.flow.ab_log import ScoredLog
from recsys_kd.flow.ab_read import read_for, resolve_all, sample_of, settings_of
from recsys_kd.flow.ab_refs import Ref, same_artifacts
from recsys_kd.flow.ab_scores import Declared
from recsys_kd.flow.ab_slices import slices_of
from recsys_kd.flow.gate_policy import check_policy, largest_bytes
from recsys_kd.flow.latency import latency_of
from recsys_kd.flow.outputs import check_outputs, inputs_of
from recsys_kd.progress import SILENT, Progress
from recsys_kd.registry.protocol import Pointer, PromotionRefused
from recsys_kd.registry.seal import sealed
from recsys_kd.registry.store import copy_beside
from recsys_kd.registry.where import RegistryMissing, open_registry
from recsys_kd.settings import AbConfig, EvaluateConfig, Margin


class NotAnArtifact(InputError):
    """The candidate is no artifact, so no verdict can name it."""


class VerdictUnwritable(OutsideError):
    """The verdict's file can't be written."""


@dataclass(frozen=True)
class Judged:
    """A verdict and the comparisons that it rests on, by the model compared with."""

    verdict: Verdict
    comparisons: Mapping[str, Comparison]
    candidate: Ref
    seen: int
    """The registry's epoch before the models were read: a champion of later is not the one that was compared with."""
    notes: tuple[str, ...] = ()
    """Rows that are left out, and models whose training days are not known, or that are not what they are called."""
    rivals: frozenset[str] = frozenset()
    """Digests of the artifacts that the policy had it compared with."""


def gate(  # noqa: PLR0913 - a log, its readers and its models
    policy: Policy,
    log: Path,
    candidate: str,
    others: Mapping[str, str],
    recipe: Path | None = None,
    store: Path = Path("store"),
    since: str | None = None,
    scores: Declared = "auto",
    progress: Progress = SILENT,
    quarantine: Path | None = None,
    registry: str | None = None,
) -> Judged:
    """Measure the candidate on a log beside the others (policy's name -> ref, as `ab` takes them) and judge it.

    Prices and columns of slices are those of the recipe (`ab:`). Bad rows go where `flow.ab.compare_log` puts them.
    Raises: NotAnArtifact, and what `flow.ab.compare_log` raises.
    """
    check_outputs({"quarantine": quarantine}, inputs_of(log, recipe, store, registry))
    loaded, ab, evaluate = settings_of(recipe)
    check_policy(policy, others, evaluate.k, ab.cluster)
    live = champions(store, registry)
    refs = {ref.name: ref for ref in resolve_all([candidate, *others.values()], log, store, registry)}
    subject = refs[candidate]
    if subject.manifest is None or subject.path is None:
        raise NotAnArtifact(
            f"'{candidate}' is a log column; a verdict is about an artifact: give its folder or version"
        )
    reading = read_for(tuple(refs.values()), log, loaded, since, scores, quarantine, progress)
    both = {name: _compare(reading.log, subject, refs[ref], policy, name, ab, evaluate) for name, ref in others.items()}
    compared = {name: found for name, (found, _) in both.items()}
    verdict = judge(policy, compared, facts_of(subject, reading.log, policy))
    verdict = sealed(replace(verdict, compared={name: refs[ref].told for name, ref in others.items()}))
    today = live.get(subject.manifest.lineage.name)
    told = dict.fromkeys(w for found, notes in both.values() for w in (*found.warnings, *notes))
    notes = (*reading.notes, *same_artifacts(refs.values()), *_not_the_champion(others, refs, today), *told)
    judged_by = frozenset(refs[ref].digest or "" for name, ref in others.items() if name in policy.against)
    return Judged(verdict, compared, subject, today.epoch if today else 0, notes, judged_by)


def champions(store: Path, registry: str | None) -> dict[str, Pointer]:
    """Return every model's champion as of now; none where there is no registry."""
    try:
        opened = open_registry(registry, store, create=False)
    except RegistryMissing:
        return {}
    found = {model: opened.pointer(model, "champion") for model in opened.models()}
    return {model: pointer for model, pointer in found.items() if pointer is not None}


def _not_the_champion(others: Mapping[str, str], refs: Mapping[str, Ref], live: Pointer | None) -> list[str]:
    """Return a note where what is called champion is not the artifact that is live."""
    if live is None or "champion" not in others or refs[others["champion"]].digest == live.digest:
        return []
    given = refs[others["champion"]].told
    return [
        f"what was compared as champion is {given}, and live is version {live.number} (artifact {live.digest[:12]}); "
        "give --against champion=MODEL@champion if that one is meant"
    ]


def _compare(
    log: ScoredLog, subject: Ref, other: Ref, policy: Policy, name: str, ab: AbConfig, evaluate: EvaluateConfig
) -> tuple[Comparison, list[str]]:
    """Return the comparison, with the slices that the policy asks for, and notes on those that have no interval."""
    margins = policy.margins(name)
    config = ab.model_copy(update={"decide": {m: Margin(not_worse=margin) for m, margin in margins.items()}})
    scores = {name: log.scores[other.name], CANDIDATE: log.scores[subject.name]}
    wanted = policy.slices if policy.slices and policy.slices.against == name else None
    masks = {part: mask for part, mask in slices_of(log).items() if wanted.takes(part)} if wanted else None
    sample = sample_of(log, ab)[0]
    found = compare(scores, name, sample, config, evaluate)
    if not masks:
        return found, []
    # Intervals of slices hold for all that they tell of at once: of what the policy judges them by, and no more.
    judged = config.model_copy(update={"decide": {policy.slice_metric: config.decide[policy.slice_metric]}})
    parts = slice_effects(masks, scores, name, sample, judged, evaluate)
    unknown = [part for part in masks if part not in {effect.slice for effect in parts}]
    notes = [f"slices too small to measure, or of one outcome: {', '.join(unknown)}"] if unknown else []
    return replace(found, slices=parts), notes


def facts_of(subject: Ref, log: ScoredLog, policy: Policy) -> Facts:
    """Return what the policy may ask of the artifact itself."""
    assert subject.path is not None and subject.manifest is not None and subject.student is not None
    p50, p99 = latency_of(subject.path)
    return Facts(
        subject.digest or "",
        subject.manifest.lineage.data_digest,
        log.digest,
        sum(p.stat().st_size for p in subject.path.iterdir()),
        largest_bytes(policy),
        p50,
        p99,
        subject.manifest.lineage.seen.get("last"),
        int(np.max(log.stamp)),
    )


def write_verdict(verdict: Verdict, path: Path) -> None:
    """Write a verdict as JSON, whole or not at all. Raises: VerdictUnwritable."""
    building = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        building.write_text(json.dumps(verdict.to_json(), indent=1))
        building.replace(path)
    except OSError as error:
        raise VerdictUnwritable(f"{path}: {error.strerror}; choose another file") from None


def promote(judged: Judged, store: Path, who: str, registry: str | None = None) -> Pointer:
    """Make the judged artifact champion of its model, if the champion is still the one of when it was judged.

    Raises: PromotionRefused, StaleEpoch, UnknownModel, RegistryMissing.
    """
    opened = open_registry(registry, store, create=False)
    assert judged.candidate.manifest is not None
    model = judged.candidate.manifest.lineage.name
    live = opened.pointer(model, "champion")
    if live is not None and live.epoch <= judged.seen and live.digest not in {*judged.rivals, judged.candidate.digest}:
        raise PromotionRefused(
            f"{model}: version {live.number} is live, and the policy did not compare it; give champion a margin in the "
            f"policy's `against`, and --against champion={model}@champion"
        )
    for version in opened.versions(model):
        if version.digest == judged.candidate.digest:
            why = f"the gate passed it on log {judged.verdict.measured_on[:12]}"
            pointer = opened.promote(model, version.number, judged.verdict, judged.seen, who, why)
            copy_beside(opened, store, model)
            return pointer
    raise PromotionRefused(
        f"{model}: artifact {(judged.candidate.digest or '')[:12]} is not registered in "
        f"{'the registry' if registry else store}; a night registers what it makes"
    )
