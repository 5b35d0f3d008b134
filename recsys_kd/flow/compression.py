"""The compress stage: budget -> rows -> folded, pruned, quantized artifact on disk."""

import dataclasses
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.artifact.manifest import Golden, Lineage, Manifest, canonical
from recsys_kd.artifact.tensors import dump
from recsys_kd.artifact.write import Artifact, describe, pack, write_artifact
from recsys_kd.compress.coding import CodedTable, RowCode
from recsys_kd.compress.export import code_tables, compile_student, quantized, served_arrays, stored_bytes
from recsys_kd.compress.fold import FloatTable, FoldedStudent, ItemFeatures, fold_student
from recsys_kd.compress.plan import (
    BadBudget,
    CompressionPlan,
    TablePlan,
    budget_error,
    nothing_kept,
    parse_bytes,
    plan_for_bytes,
    plan_for_fraction,
    smallest,
)
from recsys_kd.compress.sensitivity import Head, Sensitivity
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.calibration import IDENTITY, Platt, fit_platt
from recsys_kd.flow.publication import same_artifact
from recsys_kd.models.student import Student
from recsys_kd.runtime.head import STEPS
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.runtime.ranker import Ranker, decode_golden
from recsys_kd.settings import CompressConfig
from recsys_kd.tables import CompiledStudent

GOLDEN_REQUESTS, GOLDEN_CANDIDATES = 3, 4
_SCORE_ROWS, _PROBE_ROWS, _CALIBRATION_ROWS = 32_768, 32_768, 262_144
_PLANS = 10
_SLACK = 64
"""Bytes."""
LONGEST = -1.1754943508222875e-38


@dataclass(frozen=True)
class Compressed:
    """The student after each of its last steps: pruned, fitted again, as served; `plan` says which rows stayed."""

    pruned: CompiledStudent
    recovered: CompiledStudent
    served: CompiledStudent
    plan: CompressionPlan


def item_features(dataset: Dataset) -> ItemFeatures:
    """Return the item-side fields of every item, unknown item last."""
    fields = dataset.schema.of(side="item")
    return ItemFeatures(
        {f.name: dataset.item_ids(f.name) for f in fields if f.is_lookup and f.kind != "bag"},
        {f.name: dataset.item_bag(f.name) for f in fields if f.kind == "bag"},
        {f.name: dataset.item_dense(f.name) for f in fields if not f.is_lookup},
    )


def fold(student: Student, dataset: Dataset, config: CompressConfig) -> FoldedStudent:
    """Return the student folded for serving."""
    return fold_student(student.weights(), item_features(dataset), config.fold)


def traffic_of(dataset: Dataset) -> dict[str, NDArray[np.float64]]:
    """Return the lookups per training row of every looked-up field's rows, and of the item rows."""
    fields = [f.name for f in dataset.schema.fields if f.is_lookup]
    # An item of the catalogue that training never saw may be tomorrow's best seller: every item gets an average item's
    # traffic on top of its own. On a shop where a tenth of the items arrive late, 2% of the rows carried 15% of the
    # test traffic, and dropping them for want of a past cost 0.027 AUC.
    items, rows = dataset.traffic("item"), len(dataset.splits["train"])
    return {"item": (items + items.mean()) / rows, **{name: dataset.traffic(name) / rows for name in fields}}


def keys_of(dataset: Dataset) -> dict[str, NDArray[np.int64]]:
    """Return the keys of every vocabulary, and of the item rows."""
    return {name: dataset.keys(name) for name in ("item", *dataset.schema.vocabularies)}


def budget_of(config: CompressConfig, teacher_bytes: int) -> int | None:
    """Return the byte budget of a recipe, None where rows are given as a fraction (or nothing is pruned)."""
    if config.bytes is not None:
        return parse_bytes(config.bytes)
    return int(teacher_bytes / config.ratio) if config.ratio and teacher_bytes else None


def make_plan(tables: list[CodedTable], fixed: int, config: CompressConfig, budget: int | None) -> CompressionPlan:
    """Return the plan for a budget or a fraction. Raises: BadBudget."""
    if budget is not None:
        return plan_for_bytes(tables, fixed, budget, config.fold, config.bits, config.tiers)
    return plan_for_fraction(tables, fixed, config.keep_rows or 1.0, config.fold, config.bits)


def metrics_of(folded: FoldedStudent, dataset: Dataset) -> dict[str, NDArray[np.float64]]:
    """Return every table's loss metric, measured on a sample of the validation rows."""
    whole = [_uncoded(name, table) for name, table in folded.tables.items()]
    everything = {t.name: TablePlan(np.arange(len(t.z) - 1), RowCode(t.dim, 8)) for t in whole}
    student = compile_student(folded, whole, CompressionPlan(everything, "item", 0, 0.0, None), keys_of(dataset))
    model, found = OfflineModel(student, dataset), Sensitivity(Head(student.first, student.arrays))
    sample = evenly(dataset.splits["validation"], _PROBE_ROWS)
    for index in np.array_split(sample, max(1, len(sample) // 8192)):
        batch, items = dataset.batch(index), dataset.column("item")[index].astype(np.int64)
        lengths = {name: np.diff(bag.offsets) for name, bag in batch.bags.items()}
        found.add(dict(model.parts(batch, items)), lengths, batch.weight)
    return found.metrics()


def _uncoded(name: str, table: FloatTable) -> CodedTable:
    """Return a table whose coordinates are its values."""
    rows, dim = table.values.shape
    identity, nothing = np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32)
    return CodedTable(name, table.values, identity, nothing, np.ones(dim), table.columns, np.ones(rows), 1)


def fixed_bytes(folded: FoldedStudent, overhead: int) -> int:
    """Return the bytes of all that is not tables: arrays, headers, manifest."""
    return sum(stored_bytes(a) for a in served_arrays(folded).values()) + 8 + overhead


def _empty_overhead(folded: FoldedStudent, coded: list[CodedTable], dataset: Dataset, config: CompressConfig) -> int:
    """Return the bytes of headers and manifest, weighed on a student that keeps no rows."""
    nothing = nothing_kept(coded, config.fold)
    empty = calibrated(quantized(compile_student(folded, coded, nothing, keys_of(dataset)), nothing), IDENTITY)
    return weigh(empty, dataset, nothing) - smallest(coded, fixed_bytes(folded, 0))


def check_budget(student: Student, dataset: Dataset, config: CompressConfig, teacher_bytes: int) -> None:
    """Raise BadBudget where even a student without a row of its own for any id is too large.

    A manifest's numbers are some bytes longer or shorter once they are measured: so many are left free.
    """
    budget = budget_of(config, teacher_bytes)
    if budget is None:
        return
    folded = fold(student, dataset, config)
    coded = [_uncoded(name, table) for name, table in folded.tables.items()]
    needed = smallest(coded, fixed_bytes(folded, _empty_overhead(folded, coded, dataset, config))) + _SLACK
    if needed > budget:
        raise budget_error(needed, budget)


Recover = Callable[[CompiledStudent], CompiledStudent]
"""Fits a pruned student, rows still float32, to its training rows once more."""


def compress(
    student: Student,
    dataset: Dataset,
    config: CompressConfig,
    teacher_bytes: int,
    recover: Recover = lambda pruned: pruned,
) -> Compressed:
    """Return the student pruned to the budget, recovered and quantized. Raises: BadBudget."""
    folded, keys = fold(student, dataset, config), keys_of(dataset)
    coded = code_tables(folded, traffic_of(dataset), keys, metrics_of(folded, dataset))
    plan = _fitting_plan(folded, coded, dataset, config, budget_of(config, teacher_bytes))
    pruned = recalibrated(compile_student(folded, coded, plan, keys), dataset)
    recovered = recover(pruned)
    served = quantized(recovered, plan)
    return Compressed(pruned, recalibrated(recovered, dataset), recalibrated(served, dataset), plan)


def _fitting_plan(
    folded: FoldedStudent, coded: list[CodedTable], dataset: Dataset, config: CompressConfig, budget: int | None
) -> CompressionPlan:
    """Return the plan whose artifact fills the budget best and never exceeds it. Raises: BadBudget.

    What is not rows is weighed first, on a student that keeps none; indexes and manifest still vary by some bytes with
    the plan, so each plan is weighed too, and made again with what it was off by: first straight, then by bisection.
    """
    overhead, best = _empty_overhead(folded, coded, dataset, config), None
    fits, over = None, None
    for attempt in range(_PLANS):
        try:
            plan = make_plan(coded, fixed_bytes(folded, overhead), config, budget)
        except BadBudget:
            break
        weighed = _weighed(folded, coded, dataset, plan)
        weight = weighed.predicted_bytes
        if budget is None:
            return weighed
        if weight <= budget and (best is None or weighed.predicted_loss < best.predicted_loss):
            best = weighed
        if 0 <= budget - weight <= max(100, budget // 200):
            break
        fits, over = (overhead, over) if weight <= budget else (fits, overhead)
        if fits is None:
            # Twice as much every time: a plan that is over by one byte may be the next one too.
            overhead += (weight - budget) << attempt
        else:
            overhead = overhead + weight - budget if over is None else (fits + over) // 2
    return best or _no_rows(folded, coded, dataset, config, budget or 0)


def _weighed(
    folded: FoldedStudent, coded: list[CodedTable], dataset: Dataset, plan: CompressionPlan
) -> CompressionPlan:
    """Return a plan with the bytes that its artifact takes on disk."""
    served = calibrated(quantized(compile_student(folded, coded, plan, keys_of(dataset)), plan), IDENTITY)
    return dataclasses.replace(plan, predicted_bytes=weigh(served, dataset, plan))


def _no_rows(
    folded: FoldedStudent, coded: list[CodedTable], dataset: Dataset, config: CompressConfig, budget: int
) -> CompressionPlan:
    """Return what is left where the first rows alone, and what names them, are over the budget. Raises: BadBudget."""
    plan = _weighed(folded, coded, dataset, dataclasses.replace(nothing_kept(coded, config.fold), budget_bytes=budget))
    if plan.predicted_bytes > budget:
        raise budget_error(plan.predicted_bytes, budget)
    return plan


def evenly(rows: range, most: int) -> NDArray[np.int64]:
    """Return at most `most` rows, evenly spread over the range."""
    return np.unique(np.linspace(rows.start, rows.stop - 1, min(most, len(rows))).astype(np.int64))


def score_sample(
    student: CompiledStudent, dataset: Dataset, sample: NDArray[np.int64], steps: int | None = STEPS
) -> NDArray[np.float32]:
    """Return a compiled student's logits of some rows; `steps` as in `runtime.head.Head`."""
    model, items = OfflineModel(student, dataset, steps), dataset.column("item")
    parts = np.array_split(sample, max(1, len(sample) // _SCORE_ROWS))
    return np.concatenate([model.score_rows(dataset.batch(i), items[i].astype(np.int64)) for i in parts])


def recalibrated(student: CompiledStudent, dataset: Dataset) -> CompiledStudent:
    """Return the student with Platt scaling fitted to itself on validation: pruning makes it a little too sure."""
    sample = evenly(dataset.splits["validation"], _CALIBRATION_ROWS)
    label, weight = (np.asarray(dataset.column(name)[sample], dtype=np.float32) for name in ("label", "weight"))
    plain = calibrated(student, IDENTITY)
    return calibrated(student, fit_platt(score_sample(plain, dataset, sample), label, weight))


def calibrated(student: CompiledStudent, platt: Platt) -> CompiledStudent:
    """Return the student with its calibration as the last step of scoring."""
    pair = np.array([platt.slope, platt.offset], dtype=np.float32)
    return dataclasses.replace(student, arrays={**student.arrays, "calibration": pair})


def weigh(student: CompiledStudent, dataset: Dataset, plan: CompressionPlan) -> int:
    """Return the bytes that the artifact will have on disk."""
    tensors, entries = pack(student)
    digest, seen = "x" * 64, seen_days(dataset)
    lineage = Lineage(digest, "x" * 25, digest, digest, digest, [digest], plan.summary(), seen=seen)
    # Logits will change, and the length of their text with them: the longest there is is weighed.
    golden = tuple(
        dataclasses.replace(query, logits=[LONGEST] * len(query.logits)) for query in golden_queries(student, dataset)
    )
    weights = len(dump(tensors))
    manifest = Manifest(
        student.schema, student.width, student.first, student.terms, entries, weights, "x" * 64, lineage, golden
    )
    return weights + len(canonical(manifest.to_json()))


def seen_days(dataset: Dataset) -> dict[str, int]:
    """Return the first and last time (ms UTC) of the rows that training and validation use."""
    stamp = dataset.column("timestamp")
    used = slice(dataset.splits["train"].start, dataset.splits["validation"].stop)
    return {"first": int(stamp[used].min()), "last": int(stamp[used].max())}


def golden_queries(student: CompiledStudent, dataset: Dataset) -> tuple[Golden, ...]:
    """Return a few requests of the test days with the logits that this student gives them."""
    rows = dataset.splits["test"]
    starts = np.unique(np.linspace(rows.start, rows.stop - 1, GOLDEN_REQUESTS).astype(np.int64))
    items = dataset.keys("item")
    picked = items[np.linspace(0, len(items) - 1, GOLDEN_CANDIDATES).astype(np.int64)]
    return tuple(golden_query(student, dataset, int(row), picked) for row in starts)


def golden_query(student: CompiledStudent, dataset: Dataset, row: int, items: NDArray[np.int64]) -> Golden:
    """Return a log row's request with candidate `items` (keys), and the logits that this student gives them."""
    schema, batch = dataset.schema, dataset.batch(np.array([row]))
    missing = int(np.iinfo(np.int64).min)

    def key(vocabulary: str, at: int) -> int:
        known = dataset.keys(vocabulary)
        return int(known[at]) if at < len(known) else missing

    request = schema.of(side="request")
    candidate = schema.of(side="candidate")
    golden = Golden(
        ids={f.name: key(f.vocabulary or "", int(batch.ids[f.name][0])) for f in request if f.name in batch.ids},
        bags={
            f.name: [key(f.vocabulary or "", int(v)) for v in batch.bags[f.name].values]
            for f in request
            if f.kind == "bag"
        },
        dense={f.name: [float(x) for x in batch.dense[f.name][0]] for f in request if not f.is_lookup},
        candidates=[int(k) for k in items],
        features={
            f.name: [key(f.vocabulary or "", int(batch.ids[f.name][0]))] * len(items)
            if f.is_lookup
            else [[float(x) for x in batch.dense[f.name][0]]] * len(items)
            for f in candidate
        },
        logits=[],
    )
    scores = Ranker(student).score_encoded(*decode_golden(student, golden))
    return dataclasses.replace(golden, logits=[float(s) for s in scores])


def publish_artifact(
    store: Path,
    model: str,
    compressed: Compressed,
    dataset: Dataset,
    digests: dict[str, str],
    parents: list[str],
) -> Artifact:
    """Write the artifact of a night, or return the same one that is there; `digests` names data, recipe and teacher."""
    lineage = Lineage(
        model,
        dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        digests["data"],
        digests["recipe"],
        digests["teacher"],
        parents,
        compressed.plan.summary(),
        seen=seen_days(dataset),
    )
    golden = golden_queries(compressed.served, dataset)
    there = same_artifact(store, describe(compressed.served, lineage, golden)[0])
    return there or write_artifact(store, model, compressed.served, lineage, golden)
