"""Metrics of lists as they enter a comparison: means over requests, what is shown, and how popular it is."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.ranking import Lists, dcg, hit_rate, make_lists, mrr, ndcg, top_share
from recsys_kd.evaluate.sample import Floats, Sample
from recsys_kd.evaluate.scores import Scores, Values, scores_of
from recsys_kd.evaluate.sums import Measured, ratio

PSI_BINS, _PSI_FLOOR = 10, 1e-6
Found = tuple[Floats, NDArray[np.generic]]
"""Numerator and denominator per request."""


def list_metrics(score: Scores | Values, sample: Sample, ks: tuple[int, ...]) -> dict[str, Measured]:
    """Return every metric of lists by name; those that need a price, an item or a position only where there is one.

    Requests without a positive are left out of NDCG, HitRate and MRR. coverage@k: share of the log's items that stand
    among the first k of some request; it has no sums, since a resampled log always covers less. popularity@k: mean over
    the shown of log(impressions), less that of all candidates: 0 has no bias, above 0 favours what is shown already.
    """
    shown, scores = _Shown(sample, ks), scores_of(score)
    parts: dict[str, list[Found]] = {}
    for rows in sample.slate_blocks:
        number = sample.slate[rows]
        lists = make_lists(scores[rows], number - number[0] if rows.start else number)
        for name, found in (*_of_block(lists, sample, rows, ks), *shown.of_block(lists, rows)):
            parts.setdefault(name, []).append(found)
    metrics = {name: _mean(found, sample) for name, found in parts.items()}
    return metrics | shown.coverage()


def uninformative(sample: Sample, ks: tuple[int, ...]) -> dict[str, str]:
    """Return metric -> why it says nothing of any model on these lists: any order of them has the same value."""
    sizes, clicks = np.bincount(sample.slate), np.bincount(sample.slate, weights=sample.positive)
    found: dict[str, str] = {}
    if not _varies(sample.label, sample):
        found = dict.fromkeys(("mrr", *(f"{name}@{k}" for k in ks for name in ("ndcg", "hit_rate"))), _ALIKE)
    elif not _varies(sample.positive, sample):
        found = dict.fromkeys(("mrr", *(f"hit_rate@{k}" for k in ks)), _ALIKE)
    if sample.price is not None and not _varies(sample.label * sample.price, sample):
        found |= {f"revenue_ndcg@{k}": "every request earns the same in any order of its candidates" for k in ks}
    others = int((sizes - clicks)[clicks > 0].max(initial=0))
    for k in ks:
        if others < k:
            found.setdefault(f"hit_rate@{k}", f"no request with a click has {k} candidates without one")
        if int(sizes.max(initial=0)) <= k:
            names = ("hit_rate", "coverage", "popularity")
            found |= {f"{name}@{k}": f"no request has more than {k} candidates" for name in names}
    return found


_ALIKE = "in no request do candidates have different labels, so any order is as good"


def _varies(value: NDArray[np.generic], sample: Sample) -> bool:
    """Return whether any request has rows of different values [N]."""
    one = np.empty(sample.slates, dtype=value.dtype)
    one[sample.slate] = value
    return bool((one[sample.slate] != value).any())


def _mean(parts: list[Found], sample: Sample) -> Measured:
    top, bottom = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ratio(sample.by_owner(top), sample.by_owner(bottom))


def _of_block(lists: Lists, sample: Sample, rows: slice, ks: tuple[int, ...]) -> Iterator[tuple[str, Found]]:
    label = sample.label[rows]
    yield "mrr", mrr(lists, label)
    for k in ks:
        yield f"ndcg@{k}", ndcg(lists, label, k)
        yield f"hit_rate@{k}", hit_rate(lists, label, k)
        if sample.price is not None:
            yield f"revenue_ndcg@{k}", ndcg(lists, label * sample.price[rows], k)
        if sample.gain is not None:
            yield f"corrected_dcg@{k}", (dcg(lists, sample.gain[rows], k), np.ones(len(lists.starts)))


class _Shown:
    """What stands among the first k: which items, and how popular they are."""

    def __init__(self, sample: Sample, ks: tuple[int, ...]) -> None:
        self.item, self.ks = sample.item, ks if sample.item is not None else ()
        self.traffic = np.zeros(0, dtype=np.int64) if sample.item is None else np.bincount(sample.item)
        self.popularity = np.log(np.maximum(self.traffic, 1))
        self.chance = {k: np.zeros(len(self.traffic)) for k in ks}

    def of_block(self, lists: Lists, rows: slice) -> Iterator[tuple[str, Found]]:
        """Yield the popularity of the first k per request, and note which items they are."""
        if self.item is None:
            return
        items = self.item[rows][lists.order]
        popularity = self.popularity[items]
        mean = lists.per_request(popularity) / np.bincount(lists.request)
        above = popularity - mean[lists.request]
        for k in self.ks:
            share = top_share(lists, k)
            # An item that only the toss of a tie would show counts with its best chance.
            np.maximum.at(self.chance[k], items, share)
            # Rounded, so that where whole lists are shown no bias is 0 and not the noise of its sum.
            bias = np.round(lists.per_request(share * above), 12) + 0.0
            yield f"popularity@{k}", (bias, lists.per_request(share))

    def coverage(self) -> dict[str, Measured]:
        """Return the share of the log's items that were shown, per k."""
        known = int((self.traffic > 0).sum())
        return {f"coverage@{k}": Measured(float(self.chance[k].sum() / known), None) for k in self.ks}


def psi(a: Values, b: Values, bins: int = PSI_BINS) -> float:
    """Return the population stability index of scores b against a, in bins of equal mass of a.

    sum((share_b - share_a) * ln(share_b / share_a)): below 0.1 is stable, above 0.25 has shifted. Equal scores share a
    bin; an empty bin counts as a share of 1e-6.
    """
    edges = np.unique(np.quantile(a, np.arange(1, bins) / bins, method="higher"))
    shares = [np.bincount(np.searchsorted(edges, s, side="right"), minlength=len(edges) + 1) / len(s) for s in (a, b)]
    before, after = (np.maximum(s, _PSI_FLOOR) for s in shares)
    return float(((after - before) * np.log(after / before)).sum())
