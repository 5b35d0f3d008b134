"""Prune, quantize and assemble: from a folded float student to the compiled one that is served."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.compress.coding import CodedTable, Metrics, Traffic, code_table
from recsys_kd.compress.fold import Floats, FoldedStudent
from recsys_kd.compress.plan import CompressionPlan, TablePlan
from recsys_kd.compress.quantize import quantize_rows
from recsys_kd.index import KeyIndex, span_bits
from recsys_kd.tables import (
    LARGEST,
    CodedRows,
    CompiledStudent,
    Float32Table,
    RefinedRows,
    RowTable,
    code_matrix,
    matrix_bytes,
    nothing_row,
)


def code_tables(
    folded: FoldedStudent,
    traffic: Traffic,
    keys: Mapping[str, NDArray[np.int64]],
    metrics: Metrics,
) -> list[CodedTable]:
    """Return every table in coordinates; `metrics` per view as in `sensitivity`."""
    coded = []
    for name, table in folded.tables.items():
        made = code_table(name, table, traffic, metrics, span_bits(keys[table.keys]))
        more = sum(code_type(folded, field)().itemsize for field in folded.codes) if name == "item" else 0
        keyed = any(term.side == "candidate" and term.table == name for term in folded.terms)
        coded.append(replace(made, more_bytes=more, refinable=not keyed))
    return coded


def code_type(folded: FoldedStudent, field: str) -> type[np.integer]:
    """Return the narrowest type that can number the rows of a field's own table."""
    rows = len(folded.tables[f"{field}.folded"].values)
    return np.uint8 if rows <= 2**8 else np.uint16 if rows <= 2**16 else np.int32


def kept_rows(table: CodedTable, plan: TablePlan) -> Floats:
    """Return the coordinates of the kept rows and of the new fallback [len(keep) + 1, rank]; 0 where only hot rows
    have them.

    The fallback becomes the traffic-weighted mean of every id that will now use it, the old fallback's included: the
    best single row in squared error for the requests it will answer.
    """
    dropped = np.ones(len(table.z), dtype=bool)
    dropped[plan.keep] = False
    weight = np.maximum(table.lookups, 1e-12)[dropped]
    fallback = np.average(table.z[dropped], axis=0, weights=weight).astype(np.float32)
    rows = np.concatenate([table.z[plan.keep], fallback[None]])[:, : plan.code.widest]
    rows[~is_hot(plan), plan.code.rank :] = 0.0
    return rows


def is_hot(plan: TablePlan) -> NDArray[np.bool_]:
    """Return which of the kept rows are hot [len(keep) + 1]; the fallback never is."""
    return np.append(np.isin(plan.keep, plan.hot, assume_unique=True), False)


def served_arrays(folded: FoldedStudent) -> dict[str, Floats]:
    """Return the arrays that serving needs: heads, and the first layer of terms that are not folded."""
    weights = folded.weights
    loose = {t.name for t in folded.terms if t.layout == "compact"}
    return {
        name: array
        for name, array in weights.arrays.items()
        if name.split(".")[0] not in ("first", "linear", "project") or name.split(".", 1)[1] in loose
    }


def rounded(array: Floats) -> Floats:
    """Return a matrix rounded to the int8 codes in which it will be stored; vectors, and what is too large, as is."""
    return array if array.ndim < 2 or np.abs(array).max(initial=0.0) > LARGEST else code_matrix(array).values


def stored_bytes(array: Floats) -> int:
    """Return the bytes of an array as `rounded` and stored."""
    return matrix_bytes(*array.shape) if array.ndim == 2 else array.nbytes


def compile_student(
    folded: FoldedStudent,
    coded: Sequence[CodedTable],
    plan: CompressionPlan,
    keys: Mapping[str, NDArray[np.int64]],
) -> CompiledStudent:
    """Return the pruned student with one key index per table, its rows still float32; `quantized` is the last step."""
    tables: dict[str, RowTable] = {}
    indexes, orders, arrays = {}, {}, served_arrays(folded)
    for table in coded:
        kept = plan.tables[table.name]
        indexes[table.name], order = KeyIndex.build(keys[folded.tables[table.name].keys][kept.keep])
        orders[table.name] = order
        last = np.append(order, len(order))
        hot = is_hot(kept)[last] if kept.code.more else None
        tables[table.name] = Float32Table(kept_rows(table, kept)[last], hot, kept.code)
        for view, columns in table.views.items():
            arrays[f"basis.{view}"] = np.ascontiguousarray(table.basis[: kept.code.widest, columns])
            arrays[f"mean.{view}"] = table.mean[columns]
    return CompiledStudent(
        schema=folded.weights.schema,
        width=folded.weights.width,
        first=folded.weights.first,
        terms=folded.terms,
        tables=tables,
        indexes=indexes,
        arrays=arrays,
        codes={field: kept_codes(folded, plan, orders, field) for field in folded.codes},
    )


def quantized(student: CompiledStudent) -> CompiledStudent:
    """Return a pruned student with its rows coded as their tables say and its matrices in int8."""
    tables = {name: coded_rows(table) for name, table in student.tables.items()}
    return replace(student, tables=tables, arrays={name: rounded(array) for name, array in student.arrays.items()})


def coded_rows(table: RowTable) -> RowTable:
    """Return a table's rows as codes, those of its hot ones refined; rows that are to have no code as they are."""
    if not isinstance(table, Float32Table) or table.code is None:
        return table
    values, code = table.data, table.code
    if code.more is None or table.hot is None:
        return quantize_rows(values, code.bits)
    base, hot = quantize_rows(values[:, : code.rank], code.bits), np.flatnonzero(table.hot)
    # What is cut off a row's largest numbers would make the step of what refines it coarse.
    base.data[hot] = quantize_rows(values[hot, : code.rank], code.bits, search=False).data
    left = values[hot]
    left[:, : code.rank] -= base.lookup(hot)
    more = np.concatenate([quantize_rows(left, code.more.bits).data, nothing_row(code.more.rank, code.more.bits)])
    return RefinedRows(base, CodedRows(more, code.more.bits, code.more.rank), np.packbits(table.hot, bitorder="little"))


def kept_codes(
    folded: FoldedStudent, plan: CompressionPlan, orders: Mapping[str, NDArray[np.int64]], field: str
) -> NDArray[np.integer]:
    """Return item row -> table row of one separate item-side field, after both tables were pruned and put in order."""
    name = f"{field}.folded"
    kept = plan.tables[name].keep[orders[name]]
    moved = np.full(len(folded.tables[name].values), len(kept), dtype=code_type(folded, field))
    moved[kept] = np.arange(len(kept))
    items = np.append(plan.tables["item"].keep[orders["item"]], len(folded.codes[field]) - 1)
    rows: NDArray[np.integer] = moved[folded.codes[field][items]]
    return rows
