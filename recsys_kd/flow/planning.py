"""Which artifact to make: bytes, microseconds and AUC, weighed against each other on what was measured.

The student is trained as a night trains it (its stages are reused, and the night that follows reuses them). Every form
of it (item-side fields in one row or apart, all hidden units or half of them, rows in one tier or two) is pruned,
weighed to the byte and timed; the best two of those fast enough are fitted again, quantized and scored on the
validation days. The test days stay unseen.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

import torch

from recsys_kd.compress.plan import BadBudget, BudgetTooSmall, parse_bytes
from recsys_kd.flow.budget import no_rows
from recsys_kd.flow.cache import Stages, remove_leftovers
from recsys_kd.flow.checks import check
from recsys_kd.flow.forms import Maker, check_forms
from recsys_kd.flow.night import read
from recsys_kd.flow.options import Option, Planned, Wanted
from recsys_kd.flow.sizes import below, keeping, within
from recsys_kd.flow.training import train
from recsys_kd.progress import Progress
from recsys_kd.settings import Recipe

LADDER = (100, 50, 30, 20, 10, 5)
"""Teacher bytes / artifact bytes, smallest artifact first: what is tried where no budget of bytes is given."""
_CHOSEN, _TOLD = "chosen: ", 0.00005
_KEPT_TO = {"bits", "half_life_days", "recovery"}
"""What of `compress` a plan does not choose."""


def plan(recipe: Recipe, wanted: Wanted, progress: Progress) -> Planned:
    """Return the smallest artifact that keeps all limits; with a limit of bytes, the one that loses least.

    Where a limit of time rules out all of a size, smaller ones are tried before any limit is said to be out of reach.

    Raises: BadBudget where no form keeps all limits, naming the nearest; what reading and training raise.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    check(recipe)
    remove_leftovers(recipe.work)
    stages = Stages(recipe.work, progress)
    dataset, data_digest = read(recipe, stages)
    if wanted.bytes is not None:
        check_forms(recipe, dataset, wanted.bytes)
    trained = train(recipe, dataset, data_digest, stages)
    maker = Maker(recipe, dataset, trained, stages)
    found, why = _found(recipe, wanted, maker, trained.teacher.bytes)
    good = keeping(found)
    if not good:
        raise BadBudget(_nearest(found, wanted))
    best = max(good, key=lambda o: o.auc or 0.0)
    options = [_judged(o, best, why) for o in found]
    chosen = next(o for o in options if o.why.startswith(_CHOSEN))
    kept = recipe.compress.model_dump(include=_KEPT_TO, exclude_defaults=True, mode="json")
    told = tuple(no_rows(chosen.rows.values(), _to_raise(options, chosen, wanted)))
    return Planned(options, chosen, maker.student_auc, maker.student_bytes, trained.teacher.bytes, kept, told)


def _found(recipe: Recipe, wanted: Wanted, maker: Maker, teacher_bytes: int) -> tuple[list[Option], str]:
    """Return all that was tried, and why the best that keeps all limits is to be taken. Raises: BadBudget."""

    def tried(budget: int) -> list[Option]:
        return maker.tried(budget, wanted)

    limits = "keeps all limits" if wanted != Wanted() else "no limits were given"
    if wanted.bytes is not None:
        return within(wanted.bytes, tried, wanted), f"{limits}, and loses least in these bytes"
    steps: list[tuple[int, list[Option]]] = []
    for budget in _budgets(recipe, teacher_bytes):
        try:
            steps.append((budget, tried(budget)))
        except BudgetTooSmall:
            continue
        if keeping(steps[-1][1]):
            return [o for _, step in steps for o in step], f"the smallest that {limits}"
    if not steps:
        raise BadBudget("plan: the teacher is too small to take shares of; give --bytes")
    smallest, latest = steps[0]
    smaller = below(latest, smallest, tried, wanted)
    return smaller + [o for _, step in steps for o in step], f"{limits}, and loses least of those fast enough"


def _to_raise(options: list[Option], chosen: Option, wanted: Wanted) -> str:
    """Return which limit keeps larger artifacts from being chosen, and what to do about it."""
    if any(o.budget > chosen.budget and o.too_slow(wanted) for o in options):
        return "raise --p50-us"
    if wanted.bytes is not None:
        return f"raise --bytes, now {wanted.bytes}"
    return f"give --bytes of more than {chosen.bytes}" + (", or a lower --max-loss" if wanted.loss else "")


def _judged(option: Option, best: Option, why: str) -> Option:
    """Return an option with why it was taken, or was not."""
    if option is best:
        return replace(option, why=_CHOSEN + why)
    if option.why:
        return option
    more = (best.auc or 0.0) - (option.auc or 0.0)
    told = f"{more:.4f}" if more >= _TOLD else "less than 0.0001"
    return replace(option, why=f"loses {told} AUC more than the chosen one")


def _budgets(recipe: Recipe, teacher_bytes: int) -> Iterator[int]:
    """Yield budgets to try where none is given, the smallest first. Raises: BadBudget."""
    whole = teacher_bytes or parse_bytes(recipe.compress.bytes or 0) * LADDER[-1]
    if not whole:
        raise BadBudget("plan: the teacher has no bytes of its own to take shares of; give --bytes, such as 20MB")
    yield from (whole // ratio for ratio in LADDER)


def _nearest(found: list[Option], wanted: Wanted) -> str:
    given = {"--bytes": wanted.bytes, "--p50-us": wanted.p50_us, "--max-loss": wanted.loss}
    limits = [f"{option} {limit:.15g}" for option, limit in given.items() if limit]
    several = len(limits) > 1
    near = min(found, key=lambda o: (not any(o.rows.values()), o.loss is None, o.loss or 0.0, o.p50_us))
    lost = "" if near.loss is None else f", {near.loss:+.4f} AUC"
    slow = all(o.too_slow(wanted) for o in found)
    room = "raise --p50-us" if slow else f"give {'one of them' if several else 'it'} room"
    return (
        f"plan: no artifact keeps {' '.join(limits)}{' together' if several else ''}; the nearest is fold "
        f"{near.fold} with {near.units:.0%} of the units, {near.bytes:,} bytes, {ceil(near.p50_us)} us{lost}: "
        f"{near.why}; {room}"
    )
