"""Score columns of a comparison: which columns can be scores, and whether they hold logits or probabilities.

What a column holds is told (`--scores`), or plain from its values; where neither is so, nothing is compared.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, cast, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.data.files import first_with_rows, open_parquet
from recsys_kd.data.layout import OPTIONAL, column_of
from recsys_kd.errors import InputError
from recsys_kd.evaluate.metrics import row_logloss
from recsys_kd.evaluate.scores import Scores, Values, narrow, order_of, scores_of
from recsys_kd.flow.ab_refs import Ref
from recsys_kd.settings import DataConfig

ScoreKind = Literal["auto", "logit", "probability"]
Declared = ScoreKind | Mapping[str, ScoreKind]
"""What score columns hold: all of them, or by column; `auto` where it is not told."""
WORST_ENTROPY = 10.0
"""Log loss, over that of the click rate alone, from which a column is no model's logits: log chances of Open Bandit's
policies come to 4, prices to 50 and more."""


_EPSILON = float(np.finfo(np.float64).eps)


class NotProbabilities(InputError):
    """Scores that were said to be probabilities are not."""


class UnclearScores(InputError):
    """A column's values may be logits or probabilities, or neither; it has to be told."""


class NotScores(InputError):
    """A column holds something else than a model's scores."""


class BadScores(InputError):
    """`--scores` says what no score column is."""


def parse_scores(given: Iterable[str]) -> Declared:
    """Return what `--scores` says: `logit`, `probability` or `COLUMN=logit`, each any number of times.

    Raises: BadScores.
    """
    found: dict[str, ScoreKind] = {}
    for text in given:
        column, _, kind = text.rpartition("=")
        if kind not in get_args(ScoreKind):
            raise BadScores(f"--scores: '{text}'; give logit, probability, or COLUMN=logit, COLUMN=probability")
        found[column] = cast(ScoreKind, kind)
    return found


def kind_of(declared: Declared, column: str) -> ScoreKind:
    """Return what a column is said to hold."""
    if isinstance(declared, str):
        return declared
    return declared.get(column, declared.get("", "auto"))


def check_columns(refs: Iterable[Ref], config: DataConfig, declared: Declared, taken: Mapping[str, str]) -> None:
    """Raise NotScores where a model's name is a column of something else, BadScores where `declared` names no model.

    taken: column -> what it is, beside the keys and fields of `config`.
    """
    known = list(dict.fromkeys(r.column for r in refs if r.column))
    for column in declared if not isinstance(declared, str) else ():
        if column and column not in known:
            raise BadScores(
                f"--scores: '{column}' is no column that is compared; these are {', '.join(known) or 'none'}"
            )
    uses = _uses(config) | dict(taken)
    schema = open_parquet(first_with_rows(config.path)).schema_arrow
    for column in known:
        if column in uses:
            raise NotScores(f"'{column}' is {uses[column]}, not a model's scores; name a column of scores")
        if column not in schema.names:
            raise NotScores(f"'{column}' is named by the log's folders; name a column of scores")
        kind = schema.field(column).type
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            raise NotScores(
                f"column '{column}' is {kind}: keys, counts and labels are, a model's scores are fractions; name a "
                "column of scores, or write it as float if it is one"
            )


def _uses(config: DataConfig) -> dict[str, str]:
    named = ("user_id", "item_id", "timestamp", "label", *OPTIONAL)
    uses = {getattr(config.columns, n): f"the log's {n}" for n in named if getattr(config.columns, n)}
    return uses | {column_of(f): f"the recipe's field '{f.name}'" for f in config.fields}


def logits_of(column: str, given: NDArray[np.float64], kind: ScoreKind, label: NDArray[np.float32]) -> Scores:
    """Return a column's logits and order [N]. Probabilities are cut at float64's epsilon, 2.2e-16, as scikit-learn's
    log loss cuts them, and ordered uncut; `label` [N] in 0..1 tells where values can't be a model's.

    Raises: NotProbabilities, UnclearScores, NotScores.
    """
    values = narrow(given)
    low, high = float(values.min()), float(values.max())
    inside = low >= 0 and high <= 1
    if kind == "probability":
        if not inside:
            raise NotProbabilities(
                f"column '{column}' runs from {low:g} to {high:g}; probabilities lie in 0..1, "
                f"give --scores {column}=logit"
            )
        return Scores(_logit(values), order_of(values))
    if kind == "logit" or low == high:
        return scores_of(values)
    if inside:
        raise UnclearScores(
            f"column '{column}' runs from {low:g} to {high:g}: probabilities do, and logits seldom; log loss and ECE "
            f"depend on it. Give --scores {column}=probability, or --scores {column}=logit if logits they are"
        )
    _check_sense(column, values, label)
    return scores_of(values)


def _logit(probability: Values) -> NDArray[np.float64]:
    p = np.clip(probability.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return np.asarray(np.log(p) - np.log1p(-p))


def _check_sense(column: str, values: Values, label: NDArray[np.float32]) -> None:
    rate = float(label.mean(dtype=np.float64))
    if not 0 < rate < 1:
        return
    chance = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
    worse = float(row_logloss(values, label).mean()) / chance
    if worse > WORST_ENTROPY:
        told = float((1 / (1 + np.exp(-values.astype(np.float64)))).mean())
        raise NotScores(
            f"column '{column}' runs from {values.min():g} to {values.max():g}: as logits these say that {told:.1%} of "
            f"rows are clicked, where {rate:.1%} are, and their log loss is {worse:.0f} times that of the click rate "
            f"alone. Is it a model's score? If only its order means something, give --scores {column}=logit and decide "
            "by metrics of order (ab.decide: auc, gauc, ndcg@k, mrr)"
        )


def taken_columns(
    price: str | None, group: str | None, slices: Iterable[str], chances: Iterable[str]
) -> dict[str, str]:
    """Return column -> what a comparison takes it for, beside scores."""
    found = dict.fromkeys(slices, "a column of slices (ab.slices)")
    found |= dict.fromkeys(chances, "a policy's chances")
    named = ((price, "the price (ab.price)"), (group, "the group of a live experiment (ab.groups)"))
    return found | {name: what for name, what in named if name}
