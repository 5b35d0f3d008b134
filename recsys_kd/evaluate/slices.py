"""For whom: the deciding metrics on parts of the rows, with intervals that hold for all parts at once."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.effects import Level, raw_effect
from recsys_kd.evaluate.evaluation import SMALL_SLICE, Interval
from recsys_kd.evaluate.inference import holm
from recsys_kd.evaluate.measure import measure
from recsys_kd.evaluate.sample import Sample
from recsys_kd.evaluate.scores import Scores
from recsys_kd.settings import AbConfig, EvaluateConfig


@dataclass(frozen=True)
class SliceEffect:
    """A deciding metric on one slice: the interval is Bonferroni's and p Holm's over all slices told of."""

    slice: str
    rows: int
    clusters: int
    """Users, or requests."""
    treatment: str
    metric: str
    difference: Interval
    adjusted_p: float


def slice_effects(
    slices: Mapping[str, NDArray[np.bool_]],
    scores: Mapping[str, Scores],
    control: str,
    sample: Sample,
    config: AbConfig,
    evaluate: EvaluateConfig,
) -> tuple[SliceEffect, ...]:
    """Return the deciding metrics' differences on every slice that is large enough and has both classes."""
    large = {name: mask for name, mask in slices.items() if mask.sum() >= SMALL_SLICE}
    tests = max(1, len(large) * len(config.decide) * (len(scores) - 1))
    found = []
    for name, mask in large.items():
        part = sample.where(mask)
        level = Level(1 - (1 - evaluate.confidence) / tests, config.power, part.clusters, part.by)
        models = {m: measure(z[mask], part, evaluate.k, evaluate.ece_bins) for m, z in scores.items()}
        for treatment in models:
            if treatment == control:
                continue
            for metric in config.decide:
                effect = raw_effect(treatment, metric, models[control][metric], models[treatment][metric], level)
                if np.isfinite(effect.error):
                    found.append(
                        SliceEffect(name, len(part.label), part.clusters, treatment, metric, effect.delta, effect.p)
                    )
    adjusted = holm([e.adjusted_p for e in found])
    return tuple(dataclasses.replace(e, adjusted_p=p) for e, p in zip(found, adjusted, strict=True))
