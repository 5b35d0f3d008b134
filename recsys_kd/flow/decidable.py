"""Whether the days held back can decide anything: told before a night is spent on them.

A difference of two models has an interval of at best +-z * spread / sqrt(n), n the rows of the rarer outcome: the
narrowest spreads seen, served against teacher, were 0.048 (AUC, the demo), 0.055 (GAUC, the same), 0.12 (NDCG@10, the
same) and 0.27 (HitRate@10, MovieLens-1M). Small logs have small trainings, whose models differ more: on logs of some
hundred test rows the spread of AUC was 0.3 to 0.9. So a margin that is less than half of the best interval is refused,
since only a student far better than its teacher could pass; one that leaves no room for a worse spread is warned of.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from statistics import NormalDist

from recsys_kd.data.evidence import Evidence, parts_of
from recsys_kd.data.split import stray_told
from recsys_kd.errors import InputError
from recsys_kd.evaluate.evaluation import Evaluation
from recsys_kd.evaluate.inspect import soft_labels_told
from recsys_kd.settings import Recipe, SplitConfig

LEAST_OUTCOMES = 10
"""Positives, and negatives, of weight above 0 of validation and test: with fewer, even an AUC of 0.7 is known to +-0.14
at best."""
FEW_OUTCOMES, FEW_USERS = 100, 30
"""Under so many validation rows of one outcome, or users of the test days, a warning is due."""
LOGS_MS = 631_152_000_000
"""1990 in ms UTC: of earlier times a log of later ones has none."""
TOO_GOOD = 0.999
"""An AUC that no taste explains: an input, or the teacher's column, is likely to know the label."""
SPREAD = {"auc": 0.045, "gauc": 0.05, "ndcg": 0.1, "hit_rate": 0.25}
ROOM, HOPELESS = 4.0, 2.0
"""How many times wider than the best an interval often is where the days are few; best intervals over the margin from
which a night is refused."""


class TooFewOutcomes(InputError):
    """A split has next to no positive rows, or next to no negative ones."""


class Undecidable(InputError):
    """Every interval over the test days is far wider than the gate's margin."""


def rows_key(split: SplitConfig, name: str) -> str:
    """Return the key of a recipe that says how many rows a split has."""
    return "split.column" if split.column else f"split.{name}_days"


def soft_labels(soft: int, rows: int) -> list[str]:
    """Return what becomes of labels strictly between 0 and 1, `soft` ones of `rows`, if there are any."""
    return [f"{soft_labels_told(soft, rows)}; models learn them as chances"] if soft else []


def too_good(evaluation: Evaluation) -> list[str]:
    """Return a word on models that are right nearly always: something they read may be written after the label is."""
    found = {name: metrics["auc"].value for name, metrics in evaluation.metrics.items()}
    told = [f"{name} {value:.4f}" for name, value in found.items() if value > TOO_GOOD]
    if not told:
        return []
    return [
        f"AUC of {', '.join(told)}: too good to be true of what people choose. A field (data.fields), or "
        "teacher.column, may know the label: is each known before the item is shown?"
    ]


def check_outcomes(split: SplitConfig, splits: Mapping[str, Evidence]) -> None:
    """Raise ConstantLabel, NothingWeighs or TooFewOutcomes for rows that nothing can be learned from or judged by."""
    stray = stray_told(parts_of(splits), split)
    for name, found in splits.items():
        found.check_varies(name, stray)
    for name in ("validation", "test"):
        found = splits[name]
        if found.rarer < LEAST_OUTCOMES:
            advice = f"{stray}; or " if stray else ""
            raise TooFewOutcomes(
                f"data.columns.label: the {name} days ({found.days}) have {found.positives:,} positive and "
                f"{found.negatives:,} negative rows{_weighing(found)}, and with fewer than {LEAST_OUTCOMES} of either "
                f"nothing can be decided; {advice}give them more rows ({rows_key(split, name)}), or name a column that "
                "holds both outcomes (a label above half of data.label_max is positive)"
            )


def _weighing(found: Evidence) -> str:
    """Return which rows were counted, where some have weight 0."""
    if not found.weightless:
        return ""
    return f" of weight above 0 (data.columns.weight; {found.weightless:,} more rows have weight 0)"


def narrowest(recipe: Recipe, found: Evidence) -> float:
    """Return the half-width of the gate's interval at best, in the metric's own units."""
    z = NormalDist().inv_cdf(0.5 + recipe.evaluate.confidence / 2)
    return float(z * SPREAD[recipe.gate.metric] / found.rarer**0.5)


def check_decidable(recipe: Recipe, splits: Mapping[str, Evidence]) -> list[str]:
    """Return warnings of what the splits will hardly decide.

    Raises: ConstantLabel, NothingWeighs, TooFewOutcomes, Undecidable, naming the split, its days, its counts and what
    to do.
    """
    check_outcomes(recipe.split, splits)
    found = splits["test"]
    if found.users < 2:
        raise Undecidable(
            f"{rows_key(recipe.split, 'test')}: all {found.rows:,} rows of the test days ({found.days}) are of one "
            "user, and intervals are clustered by user: there is none; give the log more users, or check "
            "data.columns.user_id"
        )
    of_teacher = [*_taught(recipe, splits["train"]), *_of_teacher(recipe, found)]
    return [*of_teacher, *_of_champion(recipe, found), *_few(recipe.split, splits), *_zero(splits)]


def seen_until(recipe: Recipe) -> int:
    """Return the moment, ms UTC, whose earlier rows taught a precomputed teacher; 0 where the recipe doesn't say."""
    day = recipe.teacher.trained_until
    return 0 if day is None else int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp() * 1000)


def _taught(recipe: Recipe, found: Evidence) -> Iterator[str]:
    """Yield a word on a precomputed teacher that has learned every training row."""
    if found.last < seen_until(recipe):
        yield (
            f"teacher.trained_until: {recipe.teacher.trained_until}: all training rows ({found.days}) lie before it; "
            "none gets a soft label and the student will be trained as the control; is that the first day that the "
            "teacher had not learned?"
        )


def _of_teacher(recipe: Recipe, found: Evidence) -> Iterator[str]:
    best, margin = narrowest(recipe, found), recipe.gate.teacher_margin
    needed = round(found.rarer * (ROOM * best / margin) ** 2)
    told = (
        f"the test days ({found.days}) hold {found.positives:,} positive rows of "
        f"{found.rows - found.weightless:,}{_weighing(found)}, so the interval of {recipe.gate.metric} is "
        f"+-{best:.2g} at best"
    )
    more = f"some {needed:,} rows of the rarer outcome ({rows_key(recipe.split, 'test')})"
    advice = f"{more}, or a margin of {ROOM * best:.2g}, would do"
    if best > HOPELESS * margin:
        raise Undecidable(
            f"gate.teacher_margin: {margin:g} can't be shown: {told}, and the night would be held back, however good "
            f"its model; {advice}"
        )
    if ROOM * best > margin:
        yield f"gate.teacher_margin: {margin:g} leaves little room: {told}, and often some times as wide; {advice}"


def _of_champion(recipe: Recipe, found: Evidence) -> Iterator[str]:
    best, margin = narrowest(recipe, found), recipe.gate.champion_margin
    if best > margin:
        yield (
            f"gate.champion_margin: {margin:g} can't be shown by {found.positives:,} positive rows of "
            f"{found.rows - found.weightless:,}{_weighing(found)} (+-{best:.2g} at best): later nights will be held "
            "back unless they are better than the champion"
        )


def _few(split: SplitConfig, splits: Mapping[str, Evidence]) -> Iterator[str]:
    found = splits["validation"]
    if found.rarer < FEW_OUTCOMES:
        yield (
            f"{rows_key(split, 'validation')}: {found.rarer:,} validation rows of the rarer outcome ({found.days})"
            f"{_weighing(found)} decide when training stops and how scores are calibrated; {FEW_OUTCOMES} or more are "
            "steadier"
        )
    if splits["test"].users < FEW_USERS:
        yield (
            f"{rows_key(split, 'test')}: {splits['test'].users:,} users: intervals are clustered by user, and with "
            f"fewer than {FEW_USERS} they are too narrow to be trusted"
        )


def _zero(splits: Mapping[str, Evidence]) -> Iterator[str]:
    """Yield a word on times such as 0, which stand for none, in a log of our days."""
    first, last = min(found.first for found in splits.values()), max(found.last for found in splits.values())
    if first < LOGS_MS <= last:
        begins, ends = (dt.datetime.fromtimestamp(t / 1000, dt.UTC).date() for t in (first, last))
        yield (
            f"data.columns.timestamp: the log begins on {begins}, long before it ends on {ends}: is that a time, or 0 "
            "where there is none? data.window.start puts rows before a day among the bad ones"
        )
