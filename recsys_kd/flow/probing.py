"""What a log says of a student's parts: what a change of its rows costs, which units matter."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.coding import CodedTable
from recsys_kd.compress.export import code_tables, compile_student
from recsys_kd.compress.fold import Floats, FloatTable, FoldedStudent, ItemFeatures, fold_student
from recsys_kd.compress.plan import CompressionPlan, TablePlan
from recsys_kd.compress.pricing import Market
from recsys_kd.compress.sensitivity import Head, Sensitivity
from recsys_kd.compress.units import some_units, unit_costs, without_units
from recsys_kd.data.dataset import Dataset
from recsys_kd.flow.traffic import traffic_of
from recsys_kd.models.student import Student
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.settings import CompressConfig
from recsys_kd.tables import RowCode, StudentWeights, Term

_PROBE_ROWS = 32_768


def item_features(dataset: Dataset) -> ItemFeatures:
    """Return the item-side fields of every item, unknown item last."""
    fields = dataset.schema.of(side="item")
    return ItemFeatures(
        {f.name: dataset.item_ids(f.name) for f in fields if f.is_lookup and f.kind != "bag"},
        {f.name: dataset.item_bag(f.name) for f in fields if f.kind == "bag"},
        {f.name: dataset.item_dense(f.name) for f in fields if not f.is_lookup},
    )


def fold(student: Student, dataset: Dataset, config: CompressConfig) -> FoldedStudent:
    """Return the student folded for serving, with as many hidden units as it is to keep, whichever: no row is read."""
    return fold_student(some_units(student.weights(), config.units), item_features(dataset), config.fold)


def keys_of(dataset: Dataset) -> dict[str, NDArray[np.int64]]:
    """Return the keys of every vocabulary, and of the item rows."""
    return {name: dataset.keys(name) for name in ("item", *dataset.schema.vocabularies)}


def evenly(rows: range, most: int) -> NDArray[np.int64]:
    """Return at most `most` rows, evenly spread over the range."""
    return np.unique(np.linspace(rows.start, rows.stop - 1, min(most, len(rows))).astype(np.int64))


def telling(label: NDArray[np.generic], rows: range, most: int) -> NDArray[np.int64]:
    """Return at most `most` rows that tell most of an AUC: half of either outcome, all of one that has fewer.

    They are evenly spread. AUC does not depend on how many there are of each, and is known as well as the rarer
    outcome's rows allow. label: of all rows, positive above a half.
    """
    up = np.asarray(label[rows.start : rows.stop]) > 0.5
    sides = [rows.start + np.flatnonzero(side) for side in (up, ~up)]
    few = min(len(side) for side in sides)
    share = max(most // 2, most - few)
    return np.sort(np.concatenate([side[evenly(range(len(side)), share)] for side in sides if len(side)]))


@dataclass(frozen=True)
class _Probe:
    """What a batch of validation rows came to: what every term added, bags' lengths by field, sample weights."""

    parts: dict[Term, Floats]
    lengths: dict[str, NDArray[np.int64]]
    weight: Floats


def _probe(folded: FoldedStudent, dataset: Dataset) -> tuple[Head, Iterator[_Probe]]:
    """Return a student's head, and what a sample of the validation rows came to."""
    whole = [uncoded(name, table) for name, table in folded.tables.items()]
    everything = {t.name: TablePlan(np.arange(len(t.z) - 1), RowCode(t.dim, 8)) for t in whole}
    student = compile_student(folded, whole, CompressionPlan(everything, "item", 0, 0.0, None), keys_of(dataset))

    def run() -> Iterator[_Probe]:
        model, sample = OfflineModel(student, dataset), evenly(dataset.splits["validation"], _PROBE_ROWS)
        for index in np.array_split(sample, max(1, len(sample) // 8192)):
            batch, items = dataset.batch(index), dataset.column("item")[index].astype(np.int64)
            lengths = {name: np.diff(bag.offsets) for name, bag in batch.bags.items()}
            yield _Probe(dict(model.parts(batch, items)), lengths, batch.weight)

    return Head(student.first, student.arrays), run()


def metrics_of(folded: FoldedStudent, dataset: Dataset) -> dict[str, NDArray[np.float64]]:
    """Return every table's loss metric, measured on a sample of the validation rows."""
    head, probes = _probe(folded, dataset)
    found = Sensitivity(head)
    for probe in probes:
        found.add(probe.parts, probe.lengths, probe.weight)
    return found.metrics()


def narrowed(weights: StudentWeights, dataset: Dataset, config: CompressConfig) -> tuple[StudentWeights, float]:
    """Return a student with the share `config.units` of its hidden units, and the nats per row that the others cost."""
    if config.units == 1.0:
        return weights, 0.0
    head, probes = _probe(fold_student(weights, item_features(dataset), config.fold), dataset)
    found = list(probes)
    sums = np.concatenate([np.sum(list(probe.parts.values()), axis=0) for probe in found])
    return without_units(weights, unit_costs(head, sums, np.concatenate([p.weight for p in found])), config.units)


@dataclass(frozen=True)
class Coded:
    """A folded student and its tables in coordinates: what any plan is made from.

    units_cost: nats per row that the hidden units it has lost should cost.
    """

    folded: FoldedStudent
    tables: list[CodedTable]
    units_cost: float

    @cached_property
    def market(self) -> Market:
        """What the tables' codes cost and save; shared by plans for several budgets."""
        return Market(self.tables)


def code(student: Student, dataset: Dataset, config: CompressConfig) -> Coded:
    """Return a student folded, its tables' sensitivity measured."""
    weights, cost = narrowed(student.weights(), dataset, config)
    folded = fold_student(weights, item_features(dataset), config.fold)
    metrics = metrics_of(folded, dataset)
    traffic = traffic_of(dataset, config.half_life_days)
    return Coded(folded, code_tables(folded, traffic, keys_of(dataset), metrics), cost)


def uncoded(name: str, table: FloatTable) -> CodedTable:
    """Return a table whose coordinates are its values."""
    rows, dim = table.values.shape
    identity, nothing = np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32)
    return CodedTable(name, table.values, identity, nothing, np.ones(dim), table.columns, np.ones(rows), 1)
