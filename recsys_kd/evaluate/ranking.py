"""Metrics of lists: NDCG@k and HitRate@k per request over all its candidates.

Candidates with equal scores are taken in expectation over their random order, so a constant score earns what chance
earns, not what the log's order happens to give.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln  # type: ignore[import-untyped]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lists:
    """Rows sorted by (request, score descending), with every row's place and tie group."""

    order: NDArray[np.int64]
    request: NDArray[np.int64]
    """Dense request number per sorted row."""
    first: NDArray[np.int64]
    """Place, from 0, of the first row of this row's tie group."""
    last: NDArray[np.int64]
    """Place of the last row of the tie group."""
    group: NDArray[np.int64]
    starts: NDArray[np.int64]
    """Sorted index at which each request starts."""


def make_lists(score: NDArray[np.float32], request: NDArray[np.int64]) -> Lists:
    """Sort rows [N] into lists."""
    order = np.lexsort((-score, request))
    r, s = request[order], score[order]
    n = len(order)
    new_request = np.ones(n, dtype=bool)
    new_request[1:] = r[1:] != r[:-1]
    new_group = new_request.copy()
    new_group[1:] |= s[1:] != s[:-1]
    starts = np.flatnonzero(new_request)
    number = np.cumsum(new_request) - 1
    group = np.cumsum(new_group) - 1
    heads = np.flatnonzero(new_group)
    tails = np.append(heads[1:], n) - 1
    base = starts[number]
    return Lists(order, number, heads[group] - base, tails[group] - base, group, starts)


def ndcg(lists: Lists, label: NDArray[np.float32], k: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Return NDCG@k per request and which requests have a positive; gain = label, discount 1 / log2(place + 2).

    Source: Jarvelin and Kekalainen 2002; ties by McSherry and Najork 2008.
    """
    longest = int((lists.last).max(initial=0)) + 1
    discount = np.where(np.arange(longest) < k, 1.0 / np.log2(np.arange(longest) + 2.0), 0.0)
    cumulative = np.concatenate([[0.0], np.cumsum(discount)])
    mean = (cumulative[lists.last + 1] - cumulative[lists.first]) / (lists.last - lists.first + 1)
    gain = label[lists.order].astype(np.float64)
    requests = len(lists.starts)
    dcg = np.bincount(lists.request, weights=gain * mean, minlength=requests)
    ideal_order = np.lexsort((-gain, lists.request))
    place = np.arange(len(gain)) - lists.starts[lists.request]
    ideal = np.bincount(lists.request, weights=gain[ideal_order] * discount[place], minlength=requests)
    has = ideal > 0
    return np.divide(dcg, ideal, out=np.zeros(requests), where=has), has


def hit_rate(lists: Lists, label: NDArray[np.float32], k: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the chance that a positive is among the first k, per request, and which requests have a positive."""
    positive = label[lists.order] > 0.5
    requests = len(lists.starts)
    has = np.bincount(lists.request, weights=positive, minlength=requests) > 0
    groups = int(lists.group[-1]) + 1 if len(lists.group) else 0
    head = np.unique(lists.group, return_index=True)[1]
    in_group = np.bincount(lists.group, weights=positive, minlength=groups)
    first, size, of = lists.first[head], (lists.last - lists.first + 1)[head], lists.request[head]
    drawn = np.clip(k - first, 0, size)
    # Chance that none of `drawn` out of `size` is one of the group's positives (hypergeometric).
    blank = size - in_group
    possible = blank >= drawn
    log_none = _log_choose(np.maximum(blank, drawn), drawn) - _log_choose(size, drawn)
    none = np.where(possible, np.exp(np.where(possible, log_none, 0.0)), 0.0)
    miss = np.ones(requests)
    np.multiply.at(miss, of, none)
    return np.where(has, 1.0 - miss, 0.0), has


def _log_choose(n: NDArray[np.generic], k: NDArray[np.generic]) -> Floats:
    a, b = np.asarray(n, dtype=np.float64), np.asarray(k, dtype=np.float64)
    result: Floats = gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)
    return result
