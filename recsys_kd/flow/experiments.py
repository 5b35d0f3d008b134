"""Three experiments on the online shop, each with its interval and the truth beside it: A/B, interleaving, ramp."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.synth import examination
from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.evaluate.inference import BROKEN_SPLIT, critical, sample_ratio
from recsys_kd.evaluate.sums import ratio
from recsys_kd.flow.online import Ints, OnlineShop, Policy, Requests
from recsys_kd.ids import mix

STEPS = (0.01, 0.05, 0.25, 0.5)


@dataclass(frozen=True)
class Found:
    """What an experiment found: treatment - control, and what is true. split_p: the sample-ratio check's.

    share: of users that were to be treated; None where every list holds both.
    """

    what: str
    difference: Interval
    truth: float
    users: int
    split_p: float | None = None
    share: float | None = None

    @property
    def covers(self) -> bool:
        """Whether the interval holds the truth."""
        return self.difference.low <= self.truth <= self.difference.high


def arm_of(user: Ints, share: float, seed: int) -> NDArray[np.bool_]:
    """Return who is treated [R]: by a hash of the user, so that a growing share keeps those it has."""
    return (mix(user, np.full(len(user), seed)).view(np.uint64) >> np.uint64(11)).astype(np.float64) / 2**53 < share


def ab_test(
    shop: OnlineShop,
    control: Policy,
    treatment: Policy,
    requests: Requests,
    share: float = 0.5,
    seed: int = 0,
    confidence: float = 0.95,
) -> Found:
    """Split users, show each arm its policy, and compare clicks per request, clustered by user."""
    treated = arm_of(requests.user, share, seed)
    orders = [shop.order(p, requests) for p in (control, treatment)]
    shown = np.where(treated[:, None], orders[1], orders[0])
    clicks = shop.clicks(requests, shown, np.random.default_rng([seed, 1])).sum(axis=1)
    arms = [_rate(requests.user[m], clicks[m]) for m in (~treated, treated)]
    value, error = arms[1][0] - arms[0][0], float(np.hypot(arms[0][1], arms[1][1]))
    half = critical(confidence, min(arms[0][2], arms[1][2])) * error
    counts = {"control": arms[0][2], "treatment": arms[1][2]}
    truth = float((shop.value(requests, orders[1]) - shop.value(requests, orders[0])).mean())
    split = sample_ratio(counts, {"control": 1 - share, "treatment": share})
    return Found("A/B test", Interval(value, value - half, value + half), truth, sum(counts.values()), split, share)


def _rate(user: Ints, clicks: Ints) -> tuple[float, float, int]:
    """Return clicks per request, its error, and users of one arm."""
    dense = np.unique(user, return_inverse=True)[1]
    found = ratio(np.bincount(dense, weights=clicks).astype(np.float64), np.bincount(dense).astype(np.float64))
    return found.value, found.standard_error, int(dense.max(initial=-1)) + 1


def tosses(count: int, k: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return who picks first in each round of team draft [count, rounds] (True: b)."""
    return np.asarray(rng.random((count, (k + 1) // 2)) < 0.5)


def team_draft(a: Ints, b: Ints, first: NDArray[np.bool_]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return interleaved lists [R, k] of two rankings [R, k], and which of them picked each place (True: b).

    Each round a coin (`tosses`) says who picks first; each then picks its best item that is not there yet. Source:
    Radlinski et al. 2008.
    """
    count, k = a.shape
    shown, by_b = np.full((count, k), -1, dtype=np.int64), np.zeros((count, k), dtype=bool)
    for place in range(k):
        turn = first[:, place // 2] ^ bool(place % 2)
        by_b[:, place] = turn
        ranking = np.where(turn[:, None], b, a)
        taken = (ranking[:, :, None] == shown[:, None, :place]).any(axis=2)
        shown[:, place] = np.take_along_axis(ranking, np.argmin(taken, axis=1)[:, None], axis=1)[:, 0]
    return shown, by_b


def interleave(
    shop: OnlineShop, control: Policy, treatment: Policy, requests: Requests, seed: int = 0, confidence: float = 0.95
) -> Found:
    """Interleave both policies in every request: clicks on the treatment's picks less those on the control's.

    The truth is the expectation of that credit on these requests, over clicks, and over these tosses and their mirror
    image: equal policies have 0. Its sign is the sign of the policies' difference.
    """
    rng = np.random.default_rng([seed, 2])
    rankings = shop.order(control, requests), shop.order(treatment, requests)
    first = tosses(len(requests), rankings[0].shape[1], rng)
    shown, by_b = team_draft(*rankings, first)
    clicks = shop.clicks(requests, shown, rng)
    value, error, users = _rate(requests.user, (_sign(by_b) * clicks).sum(axis=1))
    half = critical(confidence, users) * error
    mirrored = team_draft(*rankings, ~first)
    truth = (_expected(requests, shown, by_b) + _expected(requests, *mirrored)) / 2
    return Found("team-draft interleaving", Interval(value, value - half, value + half), truth, users)


def _sign(by_b: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(by_b, 1.0, -1.0)


def _expected(requests: Requests, shown: Ints, by_b: NDArray[np.bool_]) -> float:
    """Return the credit that lists are expected to bring, per request."""
    chance = np.take_along_axis(requests.relevance, shown, axis=1) * examination(shown.shape[1])
    return float((_sign(by_b) * chance).sum(axis=1).mean())


@dataclass(frozen=True)
class Ramp:
    """The steps taken, and why it ended: `full`, `harm`, `broken split` or `too few users`."""

    steps: tuple[Found, ...]
    ended: str


def ramp(
    shop: OnlineShop,
    control: Policy,
    treatment: Policy,
    requests: Requests,
    seed: int = 0,
    steps: tuple[float, ...] = STEPS,
) -> Ramp:
    """Give the treatment a growing share, part after part of the requests; stop at harm, a broken split, or no answer.

    Every look may stop the ramp, so intervals hold for all looks at once (Bonferroni). A look at too few users for an
    interval is no answer.
    """
    parts = np.array_split(np.arange(len(requests)), len(steps))
    found: list[Found] = []
    for share, rows in zip(steps, parts, strict=True):
        part = Requests(*(v[rows] for v in vars(requests).values()))
        found.append(ab_test(shop, control, treatment, part, share, seed, 1 - 0.05 / len(steps)))
        if found[-1].split_p is not None and found[-1].split_p < BROKEN_SPLIT:
            return Ramp(tuple(found), "broken split")
        if found[-1].difference.high < 0:
            return Ramp(tuple(found), "harm")
        if not np.isfinite(found[-1].difference.high):
            return Ramp(tuple(found), "too few users")
    return Ramp(tuple(found), "full")
