"""Several ways to train a student, side by side, over several seeds: what each gains over the control, and of the gap.

Gap closed = (student - control) / (teacher - control), of AUCs that are means over seeds. Its interval, like all here,
is the percentiles of a bootstrap of users and seeds: in a replicate every user counts Poisson(1) times, the same in all
models, and seeds are drawn with replacement. With few seeds, their part of the interval is too small, by (n - 1) / n
of a variance; with one it is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.evaluate.bootstrap import replicate_values
from recsys_kd.evaluate.effects import percentiles
from recsys_kd.evaluate.evaluation import Interval, plain_values
from recsys_kd.evaluate.metrics import auc, calibration, ece, logloss
from recsys_kd.evaluate.sample import Sample

Floats = NDArray[np.float32]
TEACHER, CONTROL = "teacher", "control"


class OneClass(InputError):
    """Nothing can be ranked on rows of one class."""


@dataclass(frozen=True)
class Arm:
    """One way to train, over all seeds. `gap` is NaN where the teacher is not shown to be better than the control."""

    name: str
    auc: Interval
    gain: Interval
    """AUC less the control's."""
    gap: Interval
    """Share of the teacher's gain."""
    logloss: float
    ece: float
    seeds: tuple[float, ...]
    """AUC with each seed."""


@dataclass(frozen=True)
class Ablation:
    """All arms, teacher and control first."""

    rows: int
    users: int
    seeds: tuple[int, ...]
    confidence: float
    arms: tuple[Arm, ...]

    def arm(self, name: str) -> Arm:
        """Return an arm; StopIteration where there is none of that name."""
        return next(a for a in self.arms if a.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; undefined numbers become None."""
        return {k: plain_values(v) for k, v in asdict(self).items()}


def ablation(
    logits: Mapping[str, Sequence[Floats]],
    sample: Sample,
    seeds: Sequence[int],
    confidence: float = 0.95,
    replicates: int = 1000,
    bins: int = 20,
) -> Ablation:
    """Measure every arm's logits [rows], one array per seed; `teacher` and `control` must be among the arms."""
    names = [TEACHER, CONTROL, *(n for n in logits if n not in (TEACHER, CONTROL))]
    measured = {n: [auc(z, sample) for z in logits[n]] for n in names}
    sums = [m.sums for n in names for m in measured[n] if m.sums is not None]
    if len(sums) < len(names) * len(seeds):
        raise OneClass("the test rows have one class only, so no AUC; lengthen `split.test_days`")
    values = np.stack(replicate_values(sums, replicates, seed=7)).reshape(len(names), len(seeds), replicates)
    drawn = np.random.default_rng(7).integers(0, len(seeds), (len(seeds), replicates))
    spread = np.take_along_axis(values, drawn[None], axis=1).mean(axis=1)
    mean = {n: float(np.mean([m.value for m in measured[n]])) for n in names}
    replicate = dict(zip(names, spread, strict=True))
    against, around = mean[TEACHER] - mean[CONTROL], replicate[TEACHER] - replicate[CONTROL]
    known = percentiles(against, around, confidence).low > 0
    arms = []
    for name in names:
        gain, gains = mean[name] - mean[CONTROL], replicate[name] - replicate[CONTROL]
        gap = percentiles(gain / against, gains / around, confidence) if known else Interval(np.nan, np.nan, np.nan)
        arms.append(
            Arm(
                name,
                percentiles(mean[name], replicate[name], confidence),
                percentiles(gain, gains, confidence),
                gap,
                float(np.mean([logloss(z, sample).value for z in logits[name]])),
                float(np.mean([ece(calibration(z, sample, bins)) for z in logits[name]])),
                tuple(m.value for m in measured[name]),
            )
        )
    return Ablation(len(sample.label), sample.clusters, tuple(seeds), confidence, tuple(arms))
