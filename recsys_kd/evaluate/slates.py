"""Off-policy value of whole lists, where every position has its own propensity given the positions before it.

Three assumptions on how clicks depend on the list, from weakest variance to weakest assumption: `positions`, a click
depends on its own item and position (Li et al. 2018); `cascade`, also on the positions before it (McInerney et al.
2020); `whole list`, on all of them (plain IPS of the list).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.offpolicy import (
    SKEWED,
    THIN,
    OffPolicy,
    Overlap,
    check_propensity,
    overlap_of,
    summarize,
)
from recsys_kd.evaluate.sums import Measured, UserSums, ratio, ratio_of

Floats = NDArray[np.float64]


def slate_weights(ratios: Floats) -> dict[str, Floats]:
    """Return each slot's weight [lists, slots] by assumption, from target / propensity of every slot."""
    cascade = np.cumprod(ratios, axis=1)
    return {
        "positions": ratios,
        "cascade": cascade,
        "whole list": np.repeat(cascade[:, -1:], ratios.shape[1], axis=1),
    }


def slate_value(
    reward: Floats, propensity: Floats, target: Floats, user: NDArray[np.int64], confidence: float = 0.95
) -> OffPolicy:
    """Return the value per list; reward, propensity and target are [lists, slots], `user` [lists] dense.

    Each assumption comes plain (IPS) and self-normalized per slot (SNIPS), which is steadier and all but unbiased. The
    weights shown are those of `cascade`, at the last slot; warnings are about every slot of every assumption.
    Raises: BadPropensity.
    """
    shape = propensity.shape
    ratios = target / check_propensity(propensity.ravel(), target.ravel()).reshape(shape)
    groups = int(user.max(initial=-1)) + 1

    def per_user(values: Floats) -> Floats:
        return np.bincount(user, weights=values, minlength=groups).astype(np.float64)

    lists, found = per_user(np.ones(len(reward))), {}
    weights = slate_weights(ratios)
    for name, weight in weights.items():
        found[f"IPS, {name}"] = ratio(per_user((weight * reward).sum(axis=1)), lists)
        slots = [ratio(per_user(weight[:, k] * reward[:, k]), per_user(weight[:, k])) for k in range(shape[1])]
        found[f"SNIPS, {name}"] = _sum(slots)
    logged = ratio(per_user(reward.sum(axis=1)), lists)
    # At its last slot `cascade` weighs as `whole list` does everywhere, so two assumptions tell of all three.
    overlaps = {name: [overlap_of(slot) for slot in weights[name].T] for name in ("positions", "cascade")}
    overlaps["whole list"] = overlaps["cascade"][-1:]
    off = tuple(f"IPS, {name}" for name, slots in overlaps.items() if not all(slot.whole for slot in slots))
    told = [note for name in ("positions", "cascade") for note in _slot_warnings(name, overlaps[name])]
    summary = summarize(found, logged, weights["cascade"][:, -1], confidence)
    return replace(summary, off=off, warnings=tuple(told))


def _slot_warnings(name: str, overlaps: Sequence[Overlap]) -> list[str]:
    """Return what to know of one assumption's weights: the slots where few lists count, and where they miss 1."""
    few = [k for k, o in enumerate(overlaps) if o.effective < max(THIN, SKEWED * o.rows)]
    missed = [k for k, o in enumerate(overlaps) if not o.whole]
    slots, lists, notes = len(overlaps), overlaps[0].rows, []
    if few:
        counts = ", ".join(f"{overlaps[k].effective:,.0f}" for k in few)
        largest = max(overlaps[k].largest for k in few)
        notes.append(
            f"{name}: little overlap at {_named(few, slots)}: {lists:,} lists count as {counts} there, the largest "
            f"weight is {largest:.3g}; intervals are too short then: lean on an assumption with more overlap, value a "
            "shorter list, or log more exploration"
        )
    if missed:
        means = ", ".join(f"{overlaps[k].mean:.3f}" for k in missed)
        notes.append(
            f"{name}: weights at {_named(missed, slots)} average {means}, not 1: chances are not those that were drawn "
            "with (each given the slots before it), or the log's policy never shows what the target would; IPS is off "
            "by as much, and marked"
        )
    return notes


def _named(slots: Sequence[int], of: int) -> str:
    """Return `slot 3 of 3` or `slots 2, 3 of 3`: numbers count from 1."""
    return f"slot{'s' if len(slots) > 1 else ''} {', '.join(str(k + 1) for k in slots)} of {of}"


def _sum(parts: list[Measured]) -> Measured:
    """Return the sum of ratios as one metric."""
    known = [p.sums for p in parts if p.sums is not None]
    if len(known) < len(parts):
        return Measured(float("nan"), None)
    columns = np.concatenate([s.columns for s in known], axis=1)
    gradient = np.concatenate([s.gradient for s in known])

    def of(totals: Floats) -> Floats:
        return np.asarray(sum(ratio_of(totals[..., i : i + 2]) for i in range(0, totals.shape[-1], 2)))

    return Measured(sum(p.value for p in parts), UserSums(columns, of, gradient))
