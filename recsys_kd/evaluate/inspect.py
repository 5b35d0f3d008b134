"""What would make a comparison meaningless, looked for before anything is measured; each with a message of its own."""

from collections.abc import Mapping

import numpy as np

from recsys_kd.errors import InputError
from recsys_kd.evaluate.sample import Sample
from recsys_kd.evaluate.scores import Scores


class OneModel(InputError):
    """There is nothing to compare with."""


class OneClass(InputError):
    """All labels are alike."""


class ScoreMissing(InputError):
    """A score is NaN or infinite."""


class TooFewUsers(InputError):
    """Intervals need several users (or requests)."""


class MixedRequest(InputError):
    """A request's rows belong to several users."""


class RepeatedCandidate(InputError):
    """A request holds the same item twice."""


class UnknownMetric(InputError):
    """A metric that was asked for was not measured."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            f"ab.decide, or a policy's metrics: no metric '{name}'; measured are {', '.join(known)} (other k: "
            "evaluate.k; revenue: a price)"
        )


class IdleMetric(InputError):
    """A metric that would decide has the same value for every model."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} can't decide: {why}, so every model has the same; take a smaller k (evaluate.k)")


class NoInterval(InputError):
    """A metric that would decide has no interval."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} can't decide: it is a mean over users, and has no interval clustered by request; take it out of "
            "ab.decide, or a policy's metrics, or give `ab.cluster: user`"
        )


class UndirectedMetric(InputError):
    """A metric that would decide describes a model, and is neither better nor worse where it is higher."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} can't decide: it tells what is shown, and whether more of it is better is for the shop to say; "
            "take it out of ab.decide, or a policy's metrics: it is measured all the same"
        )


def inspect_sample(scores: Mapping[str, Scores], sample: Sample) -> tuple[str, ...]:
    """Return warnings about rows that can be compared; raise where they can't. Arrays [N]."""
    if len(scores) < 2:
        raise OneModel("a comparison needs a control and at least one treatment; name two scores")
    _check_weights(sample)
    positives = int(sample.positive.sum())
    if positives in (0, len(sample.label)):
        what = "clicked" if positives else "not clicked"
        low, high = float(sample.label.min()), float(sample.label.max())
        ends = "" if low == high else f" (labels run from {low:g} to {high:g}, and those above 0.5 count as clicked)"
        raise OneClass(
            f"label: all {len(sample.label):,} rows are {what}{ends}; nothing can be ranked, give a log with both"
        )
    if sample.clusters < 2:
        raise TooFewUsers(
            f"{sample.by}_id: {sample.clusters} {sample.by}(s) in {len(sample.label):,} rows; intervals need several"
        )
    _check_requests(sample)
    notes = _soft_labels(sample)
    notes += [note for name, score in scores.items() for note in _check_scores(name, score)]
    if sample.persons == len(sample.label):
        notes.append("every user has one row: GAUC is undefined, and pairs within users tell nothing")
    return tuple(notes)


def _check_weights(sample: Sample) -> None:
    """Raise OneClass where the rows that count are all clicked, or none is; labels alone are looked at elsewhere."""
    counted = sample.weight > 0
    positives, rows = int((sample.positive & counted).sum()), int(counted.sum())
    if rows < len(sample.label) and positives in (0, rows):
        raise OneClass(
            f"weight: of {rows:,} rows of weight above 0 (of {len(sample.label):,} in all) {positives:,} are clicked; "
            "nothing can be ranked, give weights above 0 to rows of both outcomes"
        )


def _soft_labels(sample: Sample) -> list[str]:
    soft = int(((sample.label > 0) & (sample.label < 1)).sum())
    if not soft:
        return []
    return [f"{soft_labels_told(soft, len(sample.label))}; off-policy values as rewards"]


def soft_labels_told(soft: int, rows: int) -> str:
    """Return what becomes of labels that are neither 0 nor 1."""
    return (
        f"labels: {soft:,} of {rows:,} rows lie between 0 and 1. Click rate, AUC, GAUC, hit rate and MRR "
        "count those above 0.5 as clicked and the others as not; NDCG takes them as gains; log loss, normalized "
        "entropy and ECE as chances to be met"
    )


def _check_scores(name: str, score: Scores) -> list[str]:
    bad = ~np.isfinite(score.logit)
    if bad.any():
        raise ScoreMissing(
            f"scores of '{name}': {int(bad.sum()):,} of {len(score):,} are NaN or infinite, the first in row "
            f"{int(np.flatnonzero(bad)[0])}; score these rows or leave them out for all models"
        )
    if score.order.min() == score.order.max():
        return [f"scores of '{name}' are all the same: it ranks by chance, AUC 0.5 by definition"]
    return []


def _check_requests(sample: Sample) -> None:
    users = np.zeros(sample.slates, dtype=np.int32)
    users[sample.slate] = sample.person
    wrong = np.flatnonzero(users[sample.slate] != sample.person)
    if len(wrong):
        request = sample.request[wrong[0]]
        raise MixedRequest(
            f"request_id: request {request} has rows of several users (row {wrong[0]}); a request is one user's list, "
            "make its id unique"
        )
    if sample.item is None:
        return
    pair = np.sort(sample.slate.astype(np.int64) * (int(sample.item.max()) + 1) + sample.item)
    again = np.flatnonzero(pair[1:] == pair[:-1])
    if len(again):
        slate, item = divmod(int(pair[again[0]]), int(sample.item.max()) + 1)
        request = sample.request[np.flatnonzero(sample.slate == slate)[0]]
        raise RepeatedCandidate(
            f"request_id: {len(again):,} candidates stand twice in one request, the first is item number {item} of "
            f"request {request}; a request logged twice counts twice: keep one copy"
        )
