"""Metrics of lists as they enter a comparison: means over requests, what is shown, and how popular it is."""

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.ranking import Lists, dcg, hit_rate, make_lists, mrr, ndcg, top_share
from recsys_kd.evaluate.sample import Floats, Sample
from recsys_kd.evaluate.sums import Measured, ratio

PSI_BINS, _PSI_FLOOR = 10, 1e-6


def _mean(values: Floats, has: NDArray[np.bool_], sample: Sample) -> Measured:
    return ratio(sample.by_owner(np.where(has, values, 0.0)), sample.by_owner(has))


def list_metrics(logit: NDArray[np.float32], sample: Sample, ks: tuple[int, ...]) -> dict[str, Measured]:
    """Return every metric of lists by name; those that need a price, an item or a position only where there is one.

    Requests without a positive are left out of NDCG, HitRate and MRR. coverage@k: share of the log's items that stand
    among the first k of some request; it has no sums, since a resampled log always covers less. popularity@k: mean over
    the shown of log(impressions), less that of all candidates: 0 has no bias, above 0 favours what is shown already.
    """
    lists = make_lists(logit, sample.slate)
    found = {"mrr": _mean(*mrr(lists, sample.label), sample)}
    for k in ks:
        found[f"ndcg@{k}"] = _mean(*ndcg(lists, sample.label, k), sample)
        found[f"hit_rate@{k}"] = _mean(*hit_rate(lists, sample.label, k), sample)
        if sample.price is not None:
            found[f"revenue_ndcg@{k}"] = _mean(*ndcg(lists, sample.label * sample.price, k), sample)
        if sample.gain is not None:
            corrected = dcg(lists, sample.gain, k)
            found[f"corrected_dcg@{k}"] = _mean(corrected, np.ones(len(corrected), dtype=bool), sample)
        if sample.item is not None:
            found |= _shown(lists, sample, k)
    return found


def _shown(lists: Lists, sample: Sample, k: int) -> dict[str, Measured]:
    """Return coverage and popularity of the first k."""
    assert sample.item is not None  # the caller has looked
    items = sample.item
    traffic = np.bincount(items)
    share = top_share(lists, k)
    # An item that only might be shown, by the toss of a tie, counts with the chance of its best place.
    shown = np.zeros(len(traffic))
    np.maximum.at(shown, items[lists.order], share)
    popularity = np.log(np.maximum(traffic, 1)).astype(np.float64)[items[lists.order]]
    mean = lists.per_request(popularity) / np.bincount(lists.request)
    above = lists.per_request(share * (popularity - mean[lists.request]))
    return {
        f"coverage@{k}": Measured(float(shown.sum() / (traffic > 0).sum()), None),
        f"popularity@{k}": ratio(sample.by_owner(above), sample.by_owner(lists.per_request(share))),
    }


def psi(a: NDArray[np.float32], b: NDArray[np.float32], bins: int = PSI_BINS) -> float:
    """Return the population stability index of scores b against a, in bins of equal mass of a.

    sum((share_b - share_a) * ln(share_b / share_a)): below 0.1 is stable, above 0.25 has shifted. Equal scores share a
    bin; an empty bin counts as a share of 1e-6.
    """
    edges = np.unique(np.quantile(a, np.arange(1, bins) / bins, method="higher"))
    shares = [np.bincount(np.searchsorted(edges, s, side="right"), minlength=len(edges) + 1) / len(s) for s in (a, b)]
    before, after = (np.maximum(s, _PSI_FLOOR) for s in shares)
    return float(((after - before) * np.log(after / before)).sum())
