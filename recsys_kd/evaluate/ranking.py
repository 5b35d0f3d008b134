"""Metrics of lists: NDCG@k, HitRate@k and MRR per request over all its candidates.

Candidates with equal scores are taken in expectation over their random order, so a constant score earns what chance
earns, not what the log's order happens to give.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln  # type: ignore[import-untyped]

from recsys_kd.evaluate.scores import Order, Scores, Values, float_bits, scores_of

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Keys = NDArray[np.unsignedinteger]


def sort_key(order: Order, group: NDArray[np.int32]) -> Keys:
    """Return unsigned integers that sort as (group, falling order) do; group numbers are dense. One sort, not two."""
    return (group.astype(np.uint64) << np.uint64(32)) | np.invert(order)


@dataclass(frozen=True)
class Lists:
    """Rows sorted by (request, score descending), with every row's place and tie group."""

    order: NDArray[np.int64]
    request: NDArray[np.int32]
    """Dense request number per sorted row."""
    first: NDArray[np.int32]
    """Place, from 0, of the first row of this row's tie group."""
    last: NDArray[np.int32]
    """Place of the last row of the tie group."""
    starts: NDArray[np.int64]
    """Sorted index at which each request starts."""

    @property
    def size(self) -> NDArray[np.int32]:
        """Rows in this row's tie group."""
        return self.last - self.first + 1

    @property
    def longest(self) -> int:
        """Candidates of the longest list."""
        return int(self.last.max(initial=-1)) + 1

    def per_request(self, values: NDArray[np.generic]) -> Floats:
        """Return the sum of sorted row values [N] per request."""
        return _sums(self.request, values, len(self.starts))


def make_lists(score: Scores | Values, request: NDArray[np.int64] | NDArray[np.int32]) -> Lists:
    """Sort rows [N] into lists; `request` is any code, and dense int32 numbers are taken as they are."""
    slate = request if request.dtype == np.int32 else np.unique(request, return_inverse=True)[1].astype(np.int32)
    key = scores_of(score).order
    order = np.argsort(sort_key(key, slate.astype(np.int32, copy=False)))
    r, s = slate[order].astype(np.int32, copy=False), key[order]
    n = len(order)
    new_request = np.ones(n, dtype=bool)
    np.not_equal(r[1:], r[:-1], out=new_request[1:])
    new_group = new_request.copy()
    new_group[1:] |= s[1:] != s[:-1]
    starts = np.flatnonzero(new_request)
    heads = np.flatnonzero(new_group)
    base = starts[r[heads]]
    group = np.cumsum(new_group, dtype=np.int32) - 1
    first = (heads - base).astype(np.int32)
    last = (np.append(heads[1:], n) - 1 - base).astype(np.int32)
    return Lists(order, r, first[group], last[group], starts)


def _discount(longest: int, k: int) -> Floats:
    places = np.arange(longest)
    return np.where(places < k, 1.0 / np.log2(places + 2.0), 0.0)


def dcg(lists: Lists, gain: NDArray[np.float32], k: int) -> Floats:
    """Return DCG@k per request: gain / log2(place + 2), ties in expectation. Source: McSherry and Najork 2008."""
    cumulative = np.concatenate([[0.0], np.cumsum(_discount(lists.longest, k))])
    got = gain[lists.order].astype(np.float64)
    at = np.flatnonzero((got != 0) & (lists.first < k))
    first, last = lists.first[at], lists.last[at]
    mean = (cumulative[last + 1] - cumulative[first]) / (last - first + 1)
    return _sums(lists.request[at], got[at] * mean, len(lists.starts))


def ideal_dcg(lists: Lists, gain: NDArray[np.float32], k: int) -> Floats:
    """Return the DCG@k of the best order of each request."""
    got = gain[lists.order]
    at = np.flatnonzero(got != 0)
    request, values = lists.request[at], got[at]
    order = np.argsort(sort_key(float_bits(values), request))
    request = request[order]
    counts = np.bincount(request, minlength=len(lists.starts))
    place = np.arange(len(request)) - (np.cumsum(counts) - counts)[request]
    discount = _discount(int(counts.max(initial=0)), k)
    weights = values[order].astype(np.float64) * discount[place]
    return _sums(request, weights, len(lists.starts))


def ndcg(lists: Lists, gain: NDArray[np.float32], k: int) -> tuple[Floats, Mask]:
    """Return NDCG@k per request and which requests have a positive gain. Source: Jarvelin and Kekalainen 2002."""
    best = ideal_dcg(lists, gain, k)
    has = best > 0
    return np.divide(dcg(lists, gain, k), best, out=np.zeros(len(best)), where=has), has


def hit_rate(lists: Lists, label: NDArray[np.float32], k: int) -> tuple[Floats, Mask]:
    """Return the chance that a positive is among the first k, per request, and which requests have a positive."""
    positive = label[lists.order] > 0.5
    has = lists.per_request(positive) > 0
    sure = lists.per_request(positive & (lists.last < k)) > 0
    # One tie group at most lies across place k: k - first of its rows are drawn.
    across = np.flatnonzero((lists.first < k) & (lists.last >= k))
    request, requests = lists.request[across], len(lists.starts)
    ups = np.bincount(request, weights=positive[across], minlength=requests)
    size, drawn = np.zeros(requests), np.zeros(requests)
    size[request], drawn[request] = lists.size[across], k - lists.first[across]
    # Chance that none of `drawn` out of `size` is a positive (hypergeometric).
    possible = size - ups >= drawn
    log_none = _log_choose(np.maximum(size - ups, drawn), drawn) - _log_choose(size, drawn)
    none = np.where(possible, np.exp(np.where(possible, log_none, 0.0)), 0.0)
    return np.where(sure, 1.0, np.where(has, 1.0 - none, 0.0)), has


def mrr(lists: Lists, label: NDArray[np.float32]) -> tuple[Floats, Mask]:
    """Return the mean of 1 / rank of the first positive per request, ties in expectation, and which requests have one.

    With m positives in a tie group of n, the first of them is its row j (from 0) with chance C(n-1-j, m-1) / C(n, m).
    """
    positive, requests = label[lists.order] > 0.5, len(lists.starts)
    has = lists.per_request(positive) > 0
    best = np.full(requests, np.iinfo(np.int32).max, dtype=np.int32)
    rows = np.flatnonzero(positive)
    owner = lists.request[rows]
    head = rows[np.append(True, owner[1:] != owner[:-1])] if len(rows) else rows
    best[lists.request[head]] = lists.first[head]
    inside = np.flatnonzero(lists.first == best[lists.request])
    request = lists.request[inside]
    n = lists.size[inside].astype(np.float64)
    m = np.bincount(request, weights=positive[inside], minlength=requests)[request]
    place = inside - lists.starts[request]
    j = place - lists.first[inside]
    possible = n - 1 - j >= m - 1
    free = np.where(possible, n - 1 - j, m - 1)
    chance = np.where(possible, np.exp(_log_choose(free, m - 1) - _log_choose(n, m)), 0.0)
    return _sums(request, chance / (place + 1.0), requests), has


def top_share(lists: Lists, k: int) -> Floats:
    """Return each sorted row's chance to be among the first k [N]: 1, 0, or a share of its tie group."""
    return np.clip((k - lists.first) / lists.size, 0.0, 1.0)


def _log_choose(n: NDArray[np.generic], k: NDArray[np.generic]) -> Floats:
    a, b = np.asarray(n, dtype=np.float64), np.asarray(k, dtype=np.float64)
    result: Floats = gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)
    return result


def _sums(group: NDArray[np.int32], values: NDArray[np.generic], groups: int) -> Floats:
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)
