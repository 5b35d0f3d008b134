"""Chooses how hidden layers read their inputs, by measurement: log loss on the validation days, time of the kernel."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np

from recsys_kd.compress.activations import ActivationChoice, choose
from recsys_kd.data.dataset import Dataset
from recsys_kd.flow import compression
from recsys_kd.flow.cache import Stages, key_of
from recsys_kd.flow.calibrating import recalibrated, score_sample
from recsys_kd.flow.goldens import golden_queries
from recsys_kd.flow.latency import medians
from recsys_kd.flow.probing import evenly
from recsys_kd.flow.recovery import digest_of
from recsys_kd.runtime.head import hidden_layers
from recsys_kd.runtime.library import kernel
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.settings import Recipe
from recsys_kd.tables import Activations, CompiledStudent

_ROWS = 262_144
_BITS = (15, 8)


def with_activations(
    recipe: Recipe, made: compression.Compressed, dataset: Dataset, stages: Stages, name: str
) -> compression.Compressed:
    """Return a compressed student whose activations are chosen, as a stage, and told."""
    key = key_of(digest_of(made.served), recipe.compress.activations)  # measured once: a retry elsewhere follows it

    def make(folder: Path) -> None:
        (folder / "choice.json").write_text(json.dumps(asdict(measured(made.served, dataset, recipe))))

    choice = ActivationChoice(**json.loads((stages.run(name, key, make) / "choice.json").read_text()))
    stages.progress.note(choice.line())
    served = made.served
    if choice.form != served.activations:
        served = recalibrated(replace(served, activations=choice.form), dataset)
    return replace(made, served=served, activations=choice)


def measured(served: CompiledStudent, dataset: Dataset, recipe: Recipe) -> ActivationChoice:
    """Return the choice for a quantized student."""
    whole = replace(served, activations="int16")
    if all(layer.coded is None for layer in hidden_layers(whole)):
        return choose(recipe.compress.activations, {}, {})
    return choose(recipe.compress.activations, losses(whole, dataset), times(whole, dataset))


def losses(served: CompiledStudent, dataset: Dataset) -> dict[str, float]:
    """Return what activations of fewer bits cost on the validation days, in nats per row, by their bits."""
    sample = evenly(dataset.splits["validation"], _ROWS)
    label, weight = (np.asarray(dataset.column(name)[sample], dtype=np.float64) for name in ("label", "weight"))

    def nats(steps: int | None) -> float:
        logit = score_sample(served, dataset, sample, steps).astype(np.float64)
        return float(np.average(np.logaddexp(0.0, logit) - label * logit, weights=weight))

    exact = nats(None)
    return {str(bits): nats(2**bits - 1) - exact for bits in _BITS}


def times(served: CompiledStudent, dataset: Dataset) -> dict[str, float]:
    """Return the median microseconds of a request by form; empty without a native kernel, which alone gains."""
    if kernel().library is None:
        return {}
    rankers: dict[str, Ranker] = {form: Ranker(replace(served, activations=form)) for form in get_args(Activations)}
    return medians(rankers, golden_queries(served, dataset))
