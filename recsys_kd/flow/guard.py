"""Whether a night's teacher is to be believed; where not, the run says why and the student is the control.

A teacher may be too old, have learned by heart the rows that it labels, or be no better than the control.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.batch import RankingModel
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.loop import score_rows
from recsys_kd.evaluate.evaluation import difference
from recsys_kd.evaluate.gate import UNTAUGHT, Check, Verdict
from recsys_kd.evaluate.metrics import auc
from recsys_kd.evaluate.sample import Sample
from recsys_kd.flow.decidable import seen_until
from recsys_kd.settings import Recipe

Floats = NDArray[np.float32]
LEARNED_BY_HEART = 0.1
"""AUC that a teacher may lose from the training to the validation rows: days and new items cost 0.01 to 0.05."""
ASSISTANTS = "the last round's assistants are"
_DAY_MS = 86_400_000


def why_untaught(
    recipe: Recipe,
    dataset: Dataset,
    teacher: RankingModel,
    control: RankingModel,
    soft: Floats,
    assistants: RankingModel | None = None,
) -> str | None:
    """Return why the teacher is not to be believed, None where it is. `soft`: its labels of every row, or NaN.

    assistants: those of the last round, whose labels the student learns instead, where there are rounds.
    """
    return (
        too_old(recipe, dataset)
        or nothing_labelled(recipe, soft)
        or learned_by_heart(recipe, dataset, teacher, soft)
        or _as_control(no_better(recipe, dataset, teacher, control))
        or _as_control(no_better(recipe, dataset, assistants, control, ASSISTANTS) if assistants else None)
    )


def _as_control(reason: str | None) -> str | None:
    return reason and f"{reason}; the student was trained as the control"


def too_old(recipe: Recipe, dataset: Dataset) -> str | None:
    """Compare `teacher.trained_until` and `teacher.max_age_days` with the first validation row."""
    limit = recipe.teacher.max_age_days
    if limit is None:
        return None
    first = int(np.asarray(dataset.column("timestamp")[dataset.splits["validation"].start]))
    age = (first - seen_until(recipe)) / _DAY_MS
    if age <= limit:
        return None
    return (
        f"the teacher learned until {recipe.teacher.trained_until}, {age:.1f} days before validation begins; "
        f"`teacher.max_age_days` allows {limit:g}: the student was trained as the control"
    )


def nothing_labelled(recipe: Recipe, soft: Floats) -> str | None:
    """Tell where no training row has a soft label."""
    if np.isfinite(soft).any():
        return None
    until = recipe.teacher.trained_until
    why = f"the teacher learned until {until}, so from every training row" if until else "the teacher scored no row"
    return f"no training row has a soft label: {why}; the student was trained as the control"


def learned_by_heart(recipe: Recipe, dataset: Dataset, teacher: RankingModel, soft: Floats) -> str | None:
    """Compare what logged scores know of labelled rows with what they know of validation."""
    if recipe.teacher.kind != "precomputed":
        return None
    validation = dataset.splits["validation"]
    labelled = auc_of(dataset, np.flatnonzero(np.isfinite(soft)), soft[np.isfinite(soft)])
    later = auc_of(dataset, _rows(validation), score_rows(teacher, dataset, validation))
    if not labelled - later > LEARNED_BY_HEART:
        return None
    return (
        f"the teacher's AUC is {labelled:.4f} on the rows it labels and {later:.4f} on validation: it has learned them "
        "by heart; name its last day as `teacher.trained_until`. The student was trained as the control"
    )


def no_better(
    recipe: Recipe, dataset: Dataset, teacher: RankingModel, control: RankingModel, who: str = "the teacher is"
) -> str | None:
    """Compare AUC on validation; where one class is missing there, nobody can tell, and the teacher is believed."""
    rows = dataset.splits["validation"]
    sample = _sample(dataset, _rows(rows))
    found = [auc(score_rows(model, dataset, rows), sample) for model in (teacher, control)]
    gain = difference(found[0], found[1], recipe.evaluate.confidence)
    if not gain.value <= 0:
        return None
    return (
        f"{who} no better than the control on validation: AUC {found[0].value:.4f} and {found[1].value:.4f}, "
        f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
    )


def auc_of(dataset: Dataset, rows: NDArray[np.int64], logit: Floats) -> float:
    """Return the weighted AUC of logits of some rows; NaN where one class is missing."""
    return auc(logit, _sample(dataset, rows)).value


def with_reason(verdict: Verdict, untaught: str | None) -> Verdict:
    """Return a verdict that tells first why the student is the control, which is not for the gate to judge."""
    if untaught is None:
        return verdict
    return replace(verdict, checks=(Check(UNTAUGHT, False, None, None, untaught, gates=False), *verdict.checks))


def _rows(rows: range) -> NDArray[np.int64]:
    return np.arange(rows.start, rows.stop)


def _sample(dataset: Dataset, rows: NDArray[np.int64]) -> Sample:
    label, weight = (np.asarray(dataset.column(name)[rows], dtype=np.float32) for name in ("label", "weight"))
    user, request = (np.asarray(dataset.column(name)[rows], dtype=np.int64) for name in ("user", "request"))
    return Sample(label, weight, user, request)
