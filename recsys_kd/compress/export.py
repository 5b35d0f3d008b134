"""Prune, quantize and assemble: from a folded float student to the compiled one that is served."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.fold import Floats, FloatTable, FoldedStudent
from recsys_kd.compress.plan import CompressionPlan, TableCost
from recsys_kd.tables import CompiledStudent, Float32Table, RowTable, quantize_rows

Traffic = Mapping[str, NDArray[np.float64]]
"""Training rows per vocabulary row of each field, fallback last; `item` counts the rows of the item table."""


def key_bytes(keys: NDArray[np.int64]) -> int:
    """Return the bytes of one stored key: 4 where all keys fit in int32, else 8."""
    if len(keys) == 0:
        return 4
    limits = np.iinfo(np.int32)
    return 4 if keys[0] >= limits.min and keys[-1] <= limits.max else 8


def table_costs(folded: FoldedStudent, traffic: Traffic, keys: Mapping[str, NDArray[np.int64]]) -> list[TableCost]:
    """Return what every table's rows cost and are worth; `traffic` is per field, [rows] with the fallback last."""
    costs = []
    for name, table in folded.tables.items():
        per_key = key_bytes(keys[table.keys]) + 4 * len(folded.codes) * (name == "item")
        worth = row_worth(table, table_traffic(table, traffic), folded.weights.width)
        costs.append(TableCost(name, worth, table.values.shape[1], per_key))
    return costs


def row_worth(table: FloatTable, traffic: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return lookups times squared distance from the mean row [rows - 1]: the squared error that pruning would cause.

    Measured on the embedding and linear columns (the last `width` + 1 of any row), which every table has. A row that
    looks like the mean is free to prune however often it is asked for; one that is never asked for, too.
    """
    values = table.values[:, -(width + 1) :].astype(np.float64)
    weight = np.maximum(traffic, 1e-6)
    distance = np.square(values - np.average(values, axis=0, weights=weight)).sum(axis=1)
    worth: NDArray[np.float64] = (traffic * distance)[:-1]
    return worth


def table_traffic(table: FloatTable, traffic: Traffic) -> NDArray[np.float64]:
    """Return the traffic of a table's rows, summed over the fields that look them up."""
    total: NDArray[np.float64] = np.sum([traffic[name] for name in table.fields], axis=0, dtype=np.float64)
    return total


def prune_table(table: FloatTable, keep: NDArray[np.int64], traffic: NDArray[np.float64]) -> Floats:
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
        name: prune_table(table, plan.keep[name], table_traffic(table, traffic))
        for name, table in folded.tables.items()
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


def column_scales(values: Floats) -> Floats:
    """Return each column's root mean square [dim]: divided by it, all columns use a row's 8-bit range alike."""
    rms = np.sqrt(np.square(values, dtype=np.float64).mean(axis=0))
    scale: Floats = np.maximum(rms, 1e-6).astype(np.float32)
    return scale


def compile_student(
    folded: FoldedStudent,
    plan: CompressionPlan,
    traffic: Traffic,
    keys: Mapping[str, NDArray[np.int64]],
    quantize: bool = True,
) -> CompiledStudent:
    """Return the student as it is served, pruned and quantized, with one sorted key index per table.

    quantize=False keeps float32 rows: the same student before its last step, to measure what that step costs.
    """
    values = pruned_values(folded, plan, traffic)
    scales = {name: column_scales(rows) for name, rows in values.items()}
    tables: dict[str, RowTable] = {
        name: quantize_rows(rows / scales[name]) if quantize else Float32Table(rows / scales[name])
        for name, rows in values.items()
    }
    return CompiledStudent(
        schema=folded.weights.schema,
        width=folded.weights.width,
        first=folded.weights.first,
        terms=folded.terms,
        tables=tables,
        indexes={name: keys[folded.tables[name].keys][plan.keep[name]] for name in values},
        arrays={**served_arrays(folded), **{f"scale.{name}": scale for name, scale in scales.items()}},
        codes={field: kept_codes(folded, plan, field) for field in folded.codes},
    )


def kept_codes(folded: FoldedStudent, plan: CompressionPlan, field: str) -> NDArray[np.int32]:
    """Return item row -> table row of one separate item-side field, after both tables were pruned."""
    table = folded.tables[f"{field}.folded"]
    kept = plan.keep[f"{field}.folded"]
    moved = np.full(len(table.values), len(kept), dtype=np.int32)
    moved[kept] = np.arange(len(kept), dtype=np.int32)
    items = np.append(plan.keep["item"], len(folded.codes[field]) - 1)
    rows: NDArray[np.int32] = moved[folded.codes[field][items]]
    return rows
