"""Offline A/B of logged or fresh scores on one sample: every metric, every treatment, slices, and what follows."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.bootstrap import replicate_values
from recsys_kd.evaluate.cautions import warnings_of
from recsys_kd.evaluate.effects import Effect, Level, needed, outcome, percentiles, raw_effect, superiority_p
from recsys_kd.evaluate.evaluation import Interval, plain_values
from recsys_kd.evaluate.inference import critical, holm, power_at
from recsys_kd.evaluate.inspect import IdleMetric, NoInterval, UndirectedMetric, UnknownMetric, inspect_sample
from recsys_kd.evaluate.lists import psi, uninformative
from recsys_kd.evaluate.measure import Model, direction, measure_model
from recsys_kd.evaluate.metrics import CalibrationPoint
from recsys_kd.evaluate.sample import Sample, Unit
from recsys_kd.evaluate.scores import Scores, Values, scores_of
from recsys_kd.evaluate.slices import SliceEffect, slice_effects
from recsys_kd.evaluate.words import headline
from recsys_kd.settings import AbConfig, EvaluateConfig


@dataclass(frozen=True)
class Comparison:
    """What an offline A/B found, as plain values."""

    control: str
    treatments: tuple[str, ...]
    rows: int
    users: int
    requests: int
    clustered_by: Unit
    positive_rate: float
    confidence: float
    power: float
    replicates: int
    seed: int
    headline: str
    outcomes: dict[str, str]
    """Per treatment: better, no worse, worse or undecided."""
    effects: tuple[Effect, ...]
    metrics: dict[str, dict[str, Interval]]
    """Model -> metric -> value with its interval."""
    slices: tuple[SliceEffect, ...]
    drift: dict[str, float]
    """PSI of every treatment's scores against the control's."""
    power_curves: dict[str, tuple[tuple[float, float], ...]]
    """Deciding metric -> (effect, power) for the first treatment."""
    calibration: dict[str, tuple[CalibrationPoint, ...]]
    warnings: tuple[str, ...]
    uninformative: dict[str, str]
    """Metrics that say nothing of any model on this log, and why."""
    doubts: dict[str, str] = dataclasses.field(default_factory=dict)
    """Treatment -> what off-policy values say against it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; undefined numbers become None."""
        return {k: plain_values(v) for k, v in asdict(self).items()}

    def effect(self, treatment: str, metric: str) -> Effect:
        """Return one effect; KeyError if there is none."""
        for found in self.effects:
            if (found.treatment, found.metric) == (treatment, metric):
                return found
        raise KeyError((treatment, metric))


def compare(
    scores: Mapping[str, Scores | Values],
    control: str,
    sample: Sample,
    config: AbConfig = AbConfig(),  # noqa: B008 - frozen
    evaluate: EvaluateConfig = EvaluateConfig(),  # noqa: B008 - frozen
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    doubts: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare every other model's logits [N] with the control's on the same rows.

    slices: name -> mask [N]; doubts: treatment -> what speaks against it beside its metrics. Intervals are paired and
    clustered by user (or request): by the delta method (which decides) and by a Poisson bootstrap, beside it. Metrics
    that can't differ on this log don't decide where nobody asked for them by name. Raises: InputError subclasses of
    `evaluate.inspect` for rows that can't be compared.
    """
    given = {name: scores_of(score) for name, score in scores.items()}
    notes = inspect_sample(given, sample)
    level = Level(evaluate.confidence, config.power, sample.clusters, sample.by)
    models = {name: measure_model(z, sample, evaluate.k, evaluate.ece_bins) for name, z in given.items()}
    idle = uninformative(sample, evaluate.k)
    config, left_out = _without_idle(_of_these_lists(config, evaluate.k), idle)
    _check_deciding(config, set(models[control].metrics), idle, sample.by)
    treatments = tuple(name for name in given if name != control)
    effects = decided(_effects(models, control, treatments, config, level), config, level)
    parts = slice_effects(slices or {}, given, control, sample, config, evaluate)
    said = {t: overall([e for e in effects if e.treatment == t and e.metric in config.decide]) for t in treatments}
    return Comparison(
        control=control,
        treatments=treatments,
        rows=len(sample.label),
        users=sample.persons,
        requests=sample.slates,
        clustered_by=sample.by,
        positive_rate=float(sample.positive.mean()),
        confidence=level.confidence,
        power=level.power,
        replicates=config.replicates,
        seed=config.seed,
        headline=headline(control, said, effects, level.confidence, doubts),
        outcomes=said,
        effects=effects,
        metrics={name: _intervals(model, level) for name, model in models.items()},
        slices=parts,
        drift={t: psi(given[control].logit, given[t].logit) for t in treatments},
        power_curves={m: power_curve(_of(effects, treatments[0], m), level) for m in config.decide},
        calibration={name: model.calibration for name, model in models.items()},
        warnings=(*notes, *left_out, *warnings_of(effects, parts, level)),
        uninformative=idle,
        doubts=dict(doubts or {}),
    )


def _of_these_lists(config: AbConfig, ks: tuple[int, ...]) -> AbConfig:
    """Return the recipe's metrics as they are; the default ones with NDCG at a k that is measured."""
    if "decide" in config.model_fields_set or "ndcg@10" not in config.decide or 10 in ks:
        return config
    named = {f"ndcg@{ks[0]}" if metric == "ndcg@10" else metric: margin for metric, margin in config.decide.items()}
    return config.model_copy(update={"decide": named})


def _without_idle(config: AbConfig, idle: Mapping[str, str]) -> tuple[AbConfig, list[str]]:
    """Return the recipe's metrics as they are; of the default ones those that can differ, and notes on the others."""
    if "decide" in config.model_fields_set:
        return config, []
    kept = {metric: margin for metric, margin in config.decide.items() if metric not in idle}
    notes = [f"{metric} does not decide: {idle[metric]}" for metric in config.decide if metric in idle]
    return config.model_copy(update={"decide": kept}), notes


def _check_deciding(config: AbConfig, known: set[str], idle: Mapping[str, str], by: Unit) -> None:
    """Raise UnknownMetric, UndirectedMetric, IdleMetric or NoInterval where a metric can't decide."""
    for metric in config.decide:
        if metric not in known:
            raise UnknownMetric(metric, sorted(known))
        if direction(metric) == 0:
            raise UndirectedMetric(metric)
        if metric in idle:
            raise IdleMetric(metric, idle[metric])
        if metric == "gauc" and by == "request":
            raise NoInterval(metric)


def _of(effects: tuple[Effect, ...], treatment: str, metric: str) -> Effect:
    return next(e for e in effects if (e.treatment, e.metric) == (treatment, metric))


def _intervals(model: Model, level: Level) -> dict[str, Interval]:
    z = critical(level.confidence, level.clusters)
    return {name: Interval(m.value, *m.ends(z)) for name, m in model.metrics.items()}


def _effects(
    models: Mapping[str, Model], control: str, treatments: tuple[str, ...], config: AbConfig, level: Level
) -> list[Effect]:
    """Return all effects, each with both intervals."""
    found = {
        (t, metric): raw_effect(t, metric, base, models[t].metrics[metric], level)
        for t in treatments
        for metric, base in models[control].metrics.items()
    }
    summed = [(n, k, m.sums) for n, model in models.items() for k, m in model.metrics.items() if m.sums is not None]
    values = replicate_values([sums for *_, sums in summed], config.replicates, config.seed)
    replicates = {(n, k): v for (n, k, _), v in zip(summed, values, strict=True)}
    out = []
    for (treatment, metric), effect in found.items():
        pair = [replicates.get((name, metric)) for name in (treatment, control)]
        if pair[0] is not None and pair[1] is not None:
            interval = percentiles(effect.delta.value, pair[0] - pair[1], level.confidence)
            effect = dataclasses.replace(effect, bootstrap=interval)
        out.append(effect)
    return out


def decided(effects: list[Effect], config: AbConfig, level: Level) -> tuple[Effect, ...]:
    """Return the effects with Holm's p-values over the deciding ones, their margins, and what follows."""
    family = [e for e in effects if e.metric in config.decide]
    p = holm([superiority_p(e, config.decide[e.metric], level) for e in family])
    adjusted = dict(zip([(e.treatment, e.metric) for e in family], p, strict=True))
    out = []
    for effect in effects:
        margin = config.decide.get(effect.metric)
        if margin is not None:
            with_p = dataclasses.replace(effect, adjusted_p=adjusted[effect.treatment, effect.metric])
            effect = dataclasses.replace(
                with_p,
                margin=margin.not_worse,
                better_by=margin.better_by,
                clusters_needed=needed(with_p, margin, level),
                outcome=outcome(with_p, margin, 1 - level.confidence),
            )
        out.append(effect)
    return tuple(out)


def overall(effects: list[Effect]) -> str:
    """Return a treatment's outcome from its deciding effects: the worst word wins, better needs no other against it."""
    words = {e.outcome for e in effects}
    for word in ("worse", "undecided"):
        if word in words:
            return word
    return "better" if "better" in words else "no worse"


def power_curve(effect: Effect, level: Level, points: int = 41) -> tuple[tuple[float, float], ...]:
    """Return (effect size, power) from 0 to twice the smallest detectable effect; empty where the error is unknown."""
    if not np.isfinite(effect.error) or effect.error == 0:
        return ()
    sizes = np.linspace(0.0, 2.0 * effect.detectable, points)
    return tuple((float(s), power_at(float(s), effect.error, level.confidence, level.clusters)) for s in sizes)
