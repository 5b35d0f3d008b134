"""Prune, quantize and assemble: from a folded float student to the compiled one that is served."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.fold import Floats, FloatTable, FoldedStudent
from recsys_kd.compress.plan import CompressionPlan, TableCost
from recsys_kd.tables import CompiledStudent, quantize_rows

Traffic = Mapping[str, NDArray[np.int64]]


def key_bytes(keys: NDArray[np.int64]) -> int:
    """Return the bytes of one stored key: 4 where all keys fit in int32, else 8."""
    if len(keys) == 0:
        return 4
    limits = np.iinfo(np.int32)
    return 4 if keys[0] >= limits.min and keys[-1] <= limits.max else 8


def table_costs(folded: FoldedStudent, traffic: Traffic, keys: Mapping[str, NDArray[np.int64]]) -> list[TableCost]:
    """Return what every table's rows cost and carry; `traffic` is per field, [rows] with the fallback last."""
    costs = []
    for name, table in folded.tables.items():
        per_key = key_bytes(keys[table.keys]) + 4 * len(folded.codes) * (name == "item")
        carried = traffic[table.traffic_field][:-1].astype(np.float64)
        costs.append(TableCost(name, carried, table.values.shape[1], per_key))
    return costs


def prune_table(table: FloatTable, keep: NDArray[np.int64], traffic: NDArray[np.int64]) -> Floats:
    """Return the kept rows and the new fallback [len(keep) + 1, dim].

    The fallback becomes the traffic-weighted mean of every id that will now use it, the old fallback's included: the
    best single row in squared error for the requests it will answer.
    """
    dropped = np.ones(len(table.values), dtype=bool)
    dropped[keep] = False
    weight = np.maximum(traffic, 1e-6)[dropped]
    fallback = np.average(table.values[dropped], axis=0, weights=weight).astype(np.float32)
    return np.concatenate([table.values[keep], fallback[None]])


def pruned_values(folded: FoldedStudent, plan: CompressionPlan, traffic: Traffic) -> dict[str, Floats]:
    """Return every table's kept rows, fallback last, still in float32."""
    return {
        name: prune_table(table, plan.keep[name], traffic[table.traffic_field]) for name, table in folded.tables.items()
    }


def served_arrays(folded: FoldedStudent) -> dict[str, Floats]:
    """Return the arrays that serving needs: heads, and the first layer of terms that are not folded."""
    weights = folded.weights
    loose = {t.name for t in folded.terms if t.layout == "compact"}
    return {
        name: array
        for name, array in weights.arrays.items()
        if name.split(".")[0] not in ("first", "linear", "project") or name.split(".", 1)[1] in loose
    }


def compile_student(
    folded: FoldedStudent,
    plan: CompressionPlan,
    traffic: Traffic,
    keys: Mapping[str, NDArray[np.int64]],
) -> CompiledStudent:
    """Return the int8 student: pruned, quantized, with one sorted key index per table."""
    values = pruned_values(folded, plan, traffic)
    return CompiledStudent(
        schema=folded.weights.schema,
        width=folded.weights.width,
        first=folded.weights.first,
        terms=folded.terms,
        tables={name: quantize_rows(rows) for name, rows in values.items()},
        indexes={name: keys[folded.tables[name].keys][plan.keep[name]] for name in values},
        arrays=served_arrays(folded),
        codes={field: kept_codes(folded, plan, field) for field in folded.codes},
    )


def kept_codes(folded: FoldedStudent, plan: CompressionPlan, field: str) -> NDArray[np.int32]:
    """Return item row -> table row of one separate item-side field, after both tables were pruned."""
    table = folded.tables[f"{field}.folded"]
    kept = plan.keep[f"{field}.folded"]
    moved = np.full(len(table.values), len(kept), dtype=np.int32)
    moved[kept] = np.arange(len(kept), dtype=np.int32)
    items = np.append(plan.keep["item"], len(folded.codes[field]) - 1)
    return moved[folded.codes[field][items]]
