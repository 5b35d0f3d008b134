"""Poisson bootstrap over users, from their sums alone: a thousand replicates are one matrix product.

Every user counts Poisson(1) times in a replicate, independently, so users can be taken in any order and in parallel.
Two things make the result the same to the last digit on any machine and with any number of threads: a block of users
has a random stream of its own, and sums are rounded to a fixed point so coarse that float64 adds them without error
(2^-52 of a column's total: 1e-12 of the metric).

Source: Chamandy et al. 2012, "Estimating uncertainty for massive data streams".
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.sums import Floats, UserSums

_BLOCK = 1024
_DRAWS = 1 << 16
_MOST = 9


@cache
def weight_table() -> Floats:
    """Return 65,536 equally likely weights: Poisson(1) in steps of 1/65,536, with mean and variance exactly 1.

    Its chances are within 1e-4 of Poisson's.
    """
    k = np.arange(_MOST)
    factorial = np.cumprod(np.maximum(k, 1)).astype(np.float64)
    counts = np.rint(_DRAWS * np.exp(-1.0) / factorial).astype(np.int64)
    # Rounding is put right in the counts of 0, 1 and 2, so that 1, k and k^2 sum to what they must.
    mean = _DRAWS - int((k * counts).sum())
    square = 2 * _DRAWS - int((k * k * counts).sum())
    counts[2] += (square - mean) // 2
    counts[1] += mean - (square - mean)
    counts[0] += _DRAWS - int(counts.sum())
    return np.repeat(k, counts).astype(np.float64)


def weights_of(seed: int, block: int, users: int, replicates: int) -> Floats:
    """Return how often each of a block's users counts in each replicate [users, replicates]."""
    stream = np.random.SFC64(np.random.SeedSequence([seed, block]))
    words = -(-users * replicates // 4)
    draws = stream.random_raw(words).view(np.uint16)[: users * replicates]
    return weight_table()[draws].reshape(users, replicates)


def replicate_totals(sums: Sequence[UserSums], replicates: int, seed: int) -> list[Floats]:
    """Return the totals of every metric's columns in every replicate: [replicates, c] each; users are the same in all.

    Peak memory: blocks of 1,024 users x replicates x 8 bytes, one per processor.
    """
    columns = [s.columns for s in sums]
    users = len(columns[0]) if columns else 0
    scales = [_scale(c) for c in columns]
    edges = np.cumsum([0, *(c.shape[1] for c in columns)])

    def part(block: int) -> Floats:
        rows = slice(block * _BLOCK, min((block + 1) * _BLOCK, users))
        fixed = np.concatenate([np.rint(c[rows] * s) for c, s in zip(columns, scales, strict=True)], axis=1)
        return np.asarray(weights_of(seed, block, len(fixed), replicates).T @ fixed)

    totals = np.zeros((replicates, int(edges[-1])))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        blocks = range(-(-users // _BLOCK))
        for start in range(0, len(blocks), 64):
            for found in pool.map(part, blocks[start : start + 64]):
                totals += found
    return [totals[:, a:b] / s for a, b, s in zip(edges[:-1], edges[1:], scales, strict=True)]


def _scale(columns: Floats) -> Floats:
    """Return a power of two per column at which no weighted sum of its users leaves the exact integers of float64."""
    largest = np.abs(columns).sum(axis=0) * _MOST
    exponent = np.floor(51.0 - np.log2(np.maximum(largest, 2.0**-400)))
    return np.asarray(np.exp2(np.minimum(exponent, 400.0)))


def replicate_values(sums: Sequence[UserSums], replicates: int, seed: int) -> list[NDArray[np.float64]]:
    """Return every metric in every replicate [replicates]; NaN where a replicate leaves it undefined."""
    totals = replicate_totals(sums, replicates, seed)
    return [s.of(t) for s, t in zip(sums, totals, strict=True)]
