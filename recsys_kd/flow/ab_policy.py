"""Off-policy value and position bias of a scored log, where it has the columns.

What a policy would have shown can't be told from the scores of what was shown: a treatment's own chances stand in a log
column called as the treatment, with `_propensity` behind it.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.evaluate.offpolicy import Logged, OffPolicy, check_propensity, off_policy
from recsys_kd.evaluate.offpolicy_model import fit_rewards
from recsys_kd.evaluate.offpolicy_table import policy_table
from recsys_kd.evaluate.positions import UnseenPosition, corrected_gain
from recsys_kd.evaluate.sample import dense
from recsys_kd.evaluate.slates import slate_value
from recsys_kd.flow.ab_log import ScoredLog

SUFFIX = "_propensity"
Floats = NDArray[np.float64]


class FractionalPosition(InputError):
    """A position is not a whole number."""


def target_columns(names: Iterable[str], columns: list[str]) -> dict[str, str]:
    """Return model -> log column of its own chances, for the models that have one."""
    return {name: f"{name}{SUFFIX}" for name in names if f"{name}{SUFFIX}" in columns}


def policy_values(log: ScoredLog, targets: dict[str, str], confidence: float) -> dict[str, OffPolicy]:
    """Return the off-policy value per shown item, and per list where all lists are equally long, of every target.

    Raises: NoPropensity where a target is given and the log says no propensity; BadPropensity.
    """
    found = {}
    propensity = log.numbers.get("propensity")
    logged = None if propensity is None else propensity.astype(np.float64)
    for name, column in targets.items():
        target = log.numbers[column].astype(np.float64)
        user = log.user.astype(np.int64)
        rows = Logged(log.label.astype(np.float64), logged, target, user)  # type: ignore[arg-type]
        found[name] = off_policy(*_with_model(log, rows), confidence)
        lists = _lists(log)
        if lists is not None and logged is not None:
            owner = user[lists[:, 0]]
            value = slate_value(rows.reward[lists], logged[lists], target[lists], owner, confidence)
            found[f"{name}, whole lists"] = value
    return found


def _with_model(log: ScoredLog, rows: Logged) -> tuple[Logged, tuple[str, ...]]:
    """Return the log with a cross-fitted reward model, for DM, DR and switch-DR, or a note on why there is none."""
    check_propensity(rows.propensity, rows.target)
    place, item = _places(log), log.item.astype(np.int64)
    table, why = policy_table(rows.target, place, item)
    if table is None:
        return rows, (f"DM, DR and switch-DR are left out: {why}",)
    fitted = fit_rewards(rows.reward, place, item, rows.cluster, table)
    return replace(rows, expected_logged=fitted.logged, expected_target=fitted.target), ()


def _places(log: ScoredLog) -> NDArray[np.int64]:
    """Return dense places [N]; all rows' is 0 where no position is logged."""
    position = log.numbers.get("position")
    if position is None:
        return np.zeros(len(log), dtype=np.int64)
    if (position != np.rint(position)).any():
        row = int(np.flatnonzero(position != np.rint(position))[0])
        raise FractionalPosition(f"position: {position[row]:g} in row {row} is no whole number; log places 0, 1, 2, ..")
    return dense(position.astype(np.int64)).astype(np.int64)


def _lists(log: ScoredLog) -> NDArray[np.int64] | None:
    """Return row numbers [lists, slots] in order of position; None without positions, or for lists of many lengths."""
    position = log.numbers.get("position")
    if position is None:
        return None
    sizes = np.bincount(log.request)
    if sizes.min() != sizes.max() or sizes[0] < 2:
        return None
    return np.lexsort((position, log.request)).reshape(-1, int(sizes[0]))


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
