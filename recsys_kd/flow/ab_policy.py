"""Off-policy value and position bias of a scored log, where it has the columns.

What a policy would have shown can't be told from the scores of what was shown: a treatment's own chances stand in a log
column called as the treatment, with `_propensity` behind it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.counts import TINY_PROPENSITY
from recsys_kd.errors import InputError
from recsys_kd.evaluate.offpolicy import Logged, OffPolicy, Overlap, check_propensity, doubt_of, off_policy
from recsys_kd.evaluate.offpolicy_model import fit_rewards
from recsys_kd.evaluate.offpolicy_table import policy_table, unseen_note
from recsys_kd.evaluate.positions import UnseenPosition, corrected_gain
from recsys_kd.evaluate.sample import Unit, dense
from recsys_kd.evaluate.slates import slate_value
from recsys_kd.flow.ab_log import ScoredLog
from recsys_kd.settings import SMALLEST_PROPENSITY

SUFFIX = "_propensity"
NO_TARGET = (
    "off-policy value is left out: the log has propensities, and no model's own chances of what was shown; log these "
    f"in a column called as the model, with {SUFFIX} behind it"
)
MOST_LOST = 0.1
"""Share of lists that may be left out of the value of whole lists."""
Floats = NDArray[np.float64]


class FractionalPosition(InputError):
    """A position is not a whole number."""


def target_columns(names: Iterable[str], columns: list[str]) -> dict[str, str]:
    """Return model -> log column of its own chances, for the models that have one."""
    return {name: f"{name}{SUFFIX}" for name in names if f"{name}{SUFFIX}" in columns}


def policy_values(
    log: ScoredLog, targets: dict[str, str], confidence: float, by: Unit = "user"
) -> tuple[dict[str, OffPolicy], tuple[str, ...]]:
    """Return the off-policy value per shown item, and per list, of every target, and notes on what has none.

    Raises: BadPropensity.
    """
    propensity = log.numbers.get("propensity")
    if not targets:
        return {}, () if propensity is None else (NO_TARGET,)
    if propensity is None:
        given = ", ".join(f"'{column}'" for column in targets.values())
        return {}, (
            f"off-policy value is left out: the log has {given}, and no propensity of its own; log the chance of each "
            "shown item as `propensity`, or name its column in the recipe (data.columns.propensity)",
        )
    found: dict[str, OffPolicy] = {}
    notes, logged = _unweighted(log), propensity.astype(np.float64)
    cluster = (log.user if by == "user" else log.request).astype(np.int64)
    for name, column in targets.items():
        if not log.numbers[column].any():
            notes.append(
                f"off-policy value of {name} is left out: '{column}' is 0 in every row, so it would show nothing that "
                "this log shows; give its own chances of the shown items"
            )
            continue
        target = log.numbers[column].astype(np.float64)
        rows = Logged(log.label.astype(np.float64), logged, target, cluster)
        found[name] = off_policy(*_with_model(log, rows), confidence)
        notes += [f"off-policy, {name}: {told}" for told in _without_tiny(log, found[name].overlap)]
        lists, note = whole_lists(log)
        notes += [f"off-policy, {name}: {note}"] if note else []
        if lists is not None:
            value = slate_value(rows.reward[lists], logged[lists], target[lists], cluster[lists[:, 0]], confidence)
            found[f"{name}, whole lists"] = value
    return found, tuple(notes)


def doubts_of(policies: Mapping[str, OffPolicy], names: Iterable[str]) -> dict[str, str]:
    """Return model -> what its off-policy value says against it, for the models whose value says so."""
    told = {name: doubt_of(policies[name]) for name in names if name in policies}
    return {name: doubt for name, doubt in told.items() if doubt}


def _without_tiny(log: ScoredLog, overlap: Overlap) -> list[str]:
    """Return what it means that rows with the smallest propensities are left out, where some are."""
    if log.smallest_propensity is None:
        return []
    return [
        f"{log.counts['quarantined'][TINY_PROPENSITY]:,} rows are left out, for their propensity is below "
        f"{SMALLEST_PROPENSITY:g} (the smallest is {log.smallest_propensity:g}): each would outweigh all others. The "
        f"{overlap.rows:,} others count as {overlap.effective:,.0f} (effective sample), and speak for what the log's "
        f"policy shows with {log.numbers['propensity'].min():.3g} and more. If such rows were drawn, log the chance "
        "that they were drawn with, or clip it at a floor that the policy kept to"
    ]


def _unweighted(log: ScoredLog) -> list[str]:
    if log.weight.min() == log.weight.max():
        return []
    ends = f"{log.weight.min():g} to {log.weight.max():g}"
    return [f"off-policy values count every row once: the log's weights ({ends}) are not used there"]


def _with_model(log: ScoredLog, rows: Logged) -> tuple[Logged, tuple[str, ...]]:
    """Return the log with a cross-fitted reward model, for DM, DR and switch-DR, or a note on why there is none."""
    check_propensity(rows.propensity, rows.target)
    place, item = _places(log), log.item.astype(np.int64)
    table, why = policy_table(rows.target, place, item)
    if table is None:
        return rows, (f"DM, DR and switch-DR are left out: {why}",)
    fitted = fit_rewards(rows.reward, place, item, rows.cluster, table)
    note = unseen_note(table, place)
    return replace(rows, expected_logged=fitted.logged, expected_target=fitted.target), ((note,) if note else ())


def _places(log: ScoredLog) -> NDArray[np.int64]:
    """Return dense places [N]; all rows' is 0 where no position is logged."""
    position = log.numbers.get("position")
    if position is None:
        return np.zeros(len(log), dtype=np.int64)
    if (position != np.rint(position)).any():
        row = int(np.flatnonzero(position != np.rint(position))[0])
        raise FractionalPosition(f"position: {position[row]:g} in row {row} is no whole number; log places 0, 1, 2, ..")
    return dense(position.astype(np.int64)).astype(np.int64)


def whole_lists(log: ScoredLog) -> tuple[NDArray[np.int64] | None, str]:
    """Return row numbers [lists, slots] in order of position, and a note on what is left out, "" for nothing.

    A list is whole where it has the places 0, 1, .. of the length that most lists have: those that lost a row are left
    out. None where there are no positions, or too few lists are whole to speak for the others.
    """
    if "position" not in log.numbers:
        return None, "value of whole lists is left out: the log has no position"
    place, request = _places(log), log.request
    sizes = np.bincount(request)
    deepest, places = np.zeros(len(sizes), dtype=np.int64), np.bincount(request, weights=place)
    np.maximum.at(deepest, request, place)
    # Places 0..n-1, each once, are those that are n, reach to n - 1 and add up to n (n - 1) / 2.
    sound = (deepest == sizes - 1) & (2 * places == sizes * (sizes - 1))
    slots = int(np.bincount(sizes[sound]).argmax()) if sound.any() else 0
    whole = sound & (sizes == slots)
    lost = len(sizes) - int(whole.sum())
    if slots < 2 or lost > MOST_LOST * len(sizes):
        told = (
            f"{len(sizes) - lost:,} of {len(sizes):,} lists have all of {slots} places" if slots > 1 else "no list does"
        )
        return None, (
            f"value of whole lists is left out: it needs lists of one length, each place from the first on once; {told}"
        )
    rows = np.flatnonzero(whole[request])
    order = rows[np.lexsort((place[rows], request[rows]))].reshape(-1, slots)
    if not lost:
        return order, ""
    return order, (
        f"whole lists: {lost:,} of {len(sizes):,} lists are left out, they have not all of {slots} places; the value "
        "speaks for the others"
    )


def gain_of(log: ScoredLog) -> tuple[NDArray[np.float32] | None, str]:
    """Return clicks corrected for their position [N], None where no position is logged, and a note on how."""
    if "position" not in log.numbers:
        return None, ""
    try:
        gain, look = corrected_gain(_places(log), log.item.astype(np.int64), log.label)
    except UnseenPosition as error:
        return None, f"corrected_dcg is not measured: {error}"
    ends = f"{look[0]:.2f} at the first place to {look[-1]:.2f} at the last"
    return gain, f"corrected_dcg: clicks over the chance that their place was looked at, estimated: {ends}"
