"""Plans whose artifacts fill a byte budget: what an artifact weighs is known only once it is put together."""

import dataclasses

from recsys_kd.artifact.manifest import Lineage, Manifest
from recsys_kd.artifact.tensors import dump
from recsys_kd.artifact.write import bytes_on_disk, pack
from recsys_kd.compress.activations import LONGEST as LONGEST_CHOICE
from recsys_kd.compress.export import compile_student, quantized, served_arrays, stored_bytes
from recsys_kd.compress.fold import FoldedStudent
from recsys_kd.compress.plan import (
    SMALLEST,
    BadBudget,
    BudgetTooSmall,
    CompressionPlan,
    at_least,
    nothing_kept,
    parse_bytes,
    plan_for_bytes,
    plan_for_rows,
    smallest,
    worth_most,
)
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.calibration import IDENTITY
from recsys_kd.flow.calibrating import calibrated
from recsys_kd.flow.goldens import golden_queries
from recsys_kd.flow.probing import Coded, fold, keys_of, uncoded
from recsys_kd.models.student import Student
from recsys_kd.settings import CompressConfig
from recsys_kd.tables import CompiledStudent

_PLANS, _USED = 10, 0.97
LONGEST = -1.1754943508222875e-38
_LONGEST_LOSS = -1234.123456789
"""As long a text as that of any loss: bytes must not depend on how good a student happens to be."""


def budget_of(config: CompressConfig, teacher_bytes: int) -> int | None:
    """Return the byte budget of a recipe, None where rows are given as a fraction (or nothing is pruned)."""
    if config.bytes is not None:
        return parse_bytes(config.bytes)
    return int(teacher_bytes / config.ratio) if config.ratio and teacher_bytes else None


def make_plan(coded: Coded, fixed: int, config: CompressConfig, budget: int | None) -> CompressionPlan:
    """Return the plan for a budget, a fraction or a threshold. Raises: BadBudget."""
    tables = coded.tables
    if budget is not None:
        return plan_for_bytes(tables, fixed, budget, config.fold, config.bits, config.tiers, coded.market)
    if config.threshold is not None:
        keeps = at_least(tables, config.threshold)
    else:
        keeps = worth_most(tables, config.keep_rows or 1.0, config.bits, config.keep_by)
    return plan_for_rows(tables, fixed, keeps, config.fold, config.bits, config.hot_rows)


def fixed_bytes(folded: FoldedStudent, overhead: int) -> int:
    """Return the bytes of all that is not tables: arrays, headers, manifest."""
    return sum(stored_bytes(a) for a in served_arrays(folded).values()) + 8 + overhead


def _empty_overhead(coded: Coded, dataset: Dataset, config: CompressConfig) -> int:
    """Return the bytes of headers and manifest, weighed on a student that keeps no rows."""
    weighed = _weighed(coded, dataset, nothing_kept(coded.tables, config.fold)).predicted_bytes
    return weighed - smallest(coded.tables, fixed_bytes(coded.folded, 0))


@dataclasses.dataclass(frozen=True)
class Room:
    """What a budget leaves for rows: bytes, how many ids could have one of a single 4-bit number, and all ids."""

    bytes: int
    rows: int
    ids: int


def check_budget(student: Student, dataset: Dataset, config: CompressConfig, teacher_bytes: int) -> Room | None:
    """Return what a budget leaves for rows, None without a budget.

    It is weighed as it will be after training: weights change no bytes, and a manifest's numbers are at their longest.
    Raises: BudgetTooSmall where even a student without a row of its own for any id is too large.
    """
    budget = budget_of(config, teacher_bytes)
    if budget is None:
        return None
    folded = fold(student, dataset, config)
    coded = Coded(folded, [uncoded(name, table) for name, table in folded.tables.items()], 0.0)
    left = budget - _no_rows(coded, dataset, config, budget).predicted_bytes
    counts = [len(table.z) - 1 for table in coded.tables]
    cheapest = min((table.row_bytes(SMALLEST) for table in coded.tables), default=1.0)
    return Room(left, min(int(left / cheapest), sum(counts)), sum(counts))


def _rank(plan: CompressionPlan, budget: int) -> tuple[bool, float]:
    """Return what tells the better of two plans that fit: first that the budget is used, then what is lost."""
    used = plan.predicted_bytes >= _USED * budget
    return used, -plan.predicted_loss if used else float(plan.predicted_bytes)


def fitting_plan(coded: Coded, dataset: Dataset, config: CompressConfig, budget: int | None) -> CompressionPlan:
    """Return the plan whose artifact fills the budget best and never exceeds it. Raises: BadBudget.

    What is not rows is weighed first, on a student that keeps none; indexes and manifest still vary by some bytes with
    the plan, so each plan is weighed too, and made again with what it was off by: first straight, then by bisection.
    """
    overhead, best = _empty_overhead(coded, dataset, config), None
    fits, over = None, None
    for attempt in range(_PLANS):
        try:
            plan = make_plan(coded, fixed_bytes(coded.folded, overhead), config, budget)
        except BadBudget:
            break
        weighed = _weighed(coded, dataset, plan)
        weight = weighed.predicted_bytes
        if budget is None:
            return weighed
        if weight <= budget and (best is None or _rank(weighed, budget) > _rank(best, budget)):
            best = weighed
        if 0 <= budget - weight <= max(100, budget // 200):
            break
        fits, over = (overhead, over) if weight <= budget else (fits, overhead)
        if fits is None:
            # Twice as much every time: a plan that is over by one byte may be the next one too.
            overhead += (weight - budget) << attempt
        else:
            overhead = overhead + weight - budget if over is None else (fits + over) // 2
    return best or _no_rows(coded, dataset, config, budget or 0)


def _weighed(coded: Coded, dataset: Dataset, plan: CompressionPlan) -> CompressionPlan:
    """Return a plan with the bytes that its artifact takes on disk."""
    pruned = compile_student(coded.folded, coded.tables, plan, keys_of(dataset))
    served = calibrated(quantized(pruned), IDENTITY)
    return dataclasses.replace(plan, predicted_bytes=weigh(served, dataset, plan))


def _no_rows(coded: Coded, dataset: Dataset, config: CompressConfig, budget: int) -> CompressionPlan:
    """Return what is left where the first rows alone, and what names them, are over the budget.

    Raises: BudgetTooSmall naming the least budget that is met: a manifest holds it, so that its digits count too.
    """
    most = budget
    while (plan := _bare(coded, dataset, config, most)).predicted_bytes > most:
        most = plan.predicted_bytes
    if most > budget:
        raise BudgetTooSmall(most, budget)
    return plan


def _bare(coded: Coded, dataset: Dataset, config: CompressConfig, budget: int) -> CompressionPlan:
    """Return the plan that keeps no rows, with the bytes that its artifact takes where `budget` is what it may take."""
    bare = nothing_kept(coded.tables, config.fold)
    return _weighed(coded, dataset, dataclasses.replace(bare, predicted_bytes=budget, budget_bytes=budget))


def weigh(student: CompiledStudent, dataset: Dataset, plan: CompressionPlan) -> int:
    """Return the bytes that the artifact will have on disk."""
    tensors, entries = pack(student)
    digest, seen = "x" * 64, seen_days(dataset)
    summary = plan.summary() | {"activations": LONGEST_CHOICE, "predicted_loss": _LONGEST_LOSS}
    lineage = Lineage(digest, "x" * 25, digest, digest, digest, [digest], summary, seen=seen)
    # Logits will change, and the length of their text with them: the longest there is is weighed.
    golden = tuple(
        dataclasses.replace(query, logits=[LONGEST] * len(query.logits)) for query in golden_queries(student, dataset)
    )
    weights = len(dump(tensors))
    shape = student.schema, student.width, student.first, student.terms
    manifest = Manifest(*shape, entries, weights, "x" * 64, lineage, golden, activations="float32")
    return bytes_on_disk(manifest, weights)


def seen_days(dataset: Dataset) -> dict[str, int]:
    """Return the first and last time (ms UTC) of the rows that training and validation use."""
    stamp = dataset.column("timestamp")
    used = slice(dataset.splits["train"].start, dataset.splits["validation"].stop)
    return {"first": int(stamp[used].min()), "last": int(stamp[used].max())}
