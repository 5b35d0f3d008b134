"""A compiled student in the form the native kernel reads, and calls to it.

Tables, indexes and codes stay where they are mapped; bases, first layer and head are multiplied out once, here.
"""

import ctypes
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.index import KeyIndex, layout
from recsys_kd.runtime import abi
from recsys_kd.runtime.affine import Affine, affine, calibration, constants, stack
from recsys_kd.runtime.encode import Features, Request, Slots
from recsys_kd.runtime.grid import grid, is_whole
from recsys_kd.runtime.head import Layer, hidden_layers, pairs
from recsys_kd.runtime.library import Library
from recsys_kd.runtime.values import Keys
from recsys_kd.tables import CodedRows, CompiledStudent, RefinedRows, Term

Floats = NDArray[np.float32]


def can_score(student: CompiledStudent) -> bool:
    """Return whether the kernel knows every part of a student: coded tables, one row per candidate and lookup.

    Of tables in two tiers, those of requests and of items.
    """
    coded = all(isinstance(table, CodedRows | RefinedRows) for table in student.tables.values())
    keyed = [student.tables[t.table] for t in student.terms if t.side == "candidate" and t.table]
    coded = coded and not any(isinstance(table, RefinedRows) for table in keyed)
    return coded and all(t.kind in ("row", "dense", "vector") for t in student.terms if t.side != "request")


@dataclass(frozen=True)
class _Part:
    """A candidate term as the kernel has it: one of a table's tiers, and the row of it that each item row has."""

    term: Term
    affine: Affine
    table: str | None
    codes: NDArray[np.integer] | None = None


def _more(table: str) -> str:
    """Return what the kernel's table of a table's refining rows is called."""
    return f"more of {table}"


def _parts(student: CompiledStudent, term: Term) -> list[_Part]:
    """Return a term as it is; over a table in two tiers as two terms, whose sum it is."""
    whole, table = affine(student, term), student.tables.get(term.table or "")
    codes = student.codes[term.name] if term.side == "item" and term.name != "item" else None
    if not isinstance(table, RefinedRows):
        return [_Part(term, whole, term.table, codes)]
    base = Affine(whole.matrix[: table.base.dim], whole.mean, whole.square)
    more = Affine(whole.matrix, np.zeros_like(whole.mean), whole.square)
    refining = table.codes if codes is None else table.codes[codes]
    return [_Part(term, base, term.table, codes), _Part(term, more, _more(term.table or ""), refining)]


class NativeScorer:
    """Scores with the kernel; stateless, so any number of threads may call it at once."""

    def __init__(self, student: CompiledStudent, request: Slots, candidate: Slots, library: Library) -> None:
        self._kept: list[Any] = [student]
        self.library = library
        self._tables = [*student.tables, *(_more(n) for n, t in student.tables.items() if isinstance(t, RefinedRows))]
        request_terms = [t for t in student.terms if t.side == "request"]
        # Terms in whole numbers come first, before all the item's own row, by which other item-side terms are coded.
        candidate_terms = sorted((t for t in student.terms if t.side != "request"), key=lambda t: t.name != "item")
        leads = bool(candidate_terms) and is_whole(student, candidate_terms[0])
        self._whole = {t.name for t in candidate_terms if leads and is_whole(student, t)}
        candidate_terms.sort(key=lambda t: t.name not in self._whole)
        parts = [part for t in candidate_terms for part in _parts(student, t)]
        self._fields = [t.field for t in (*request_terms, *(part.term for part in parts))]
        self.misses = ctypes.c_int64 * len(self._fields)
        self._dims = [f.dim for f in candidate.numbers]
        self._columns = len(candidate.keys)
        self.model = self._model(student, request_terms, parts, request, candidate)

    def _keep(self, values: NDArray[Any], kind: Any = np.float32) -> int:
        """Return the address of values as `kind`, rounded once, without gaps; they live as long as this does."""
        array: NDArray[Any] = np.ascontiguousarray(values, dtype=kind)
        self._kept.append(array)
        return abi.address(array)

    def _structs(self, kind: type[ctypes.Structure], items: list[Any]) -> Any:
        made = abi.struct_array(kind, items)
        self._kept.append(made)
        return made

    def _model(
        self,
        student: CompiledStudent,
        request_terms: list[Term],
        parts: list["_Part"],
        request: Slots,
        candidate: Slots,
    ) -> abi.Model:
        affines = [part.affine for part in parts]
        stacked = stack(affines, student.first, student.width)
        slope, offset = calibration(student)
        last = Layer(student.arrays["out.weight"][None], np.zeros(1, dtype=np.float32), None)
        layers = [self._layer(layer) for layer in (*hidden_layers(student), last)]
        tables = [self._table(name, student) for name in self._tables]
        mine = [self._request_term(t, affine(student, t), request) for t in request_terms]
        theirs = [self._candidate_term(student, part, candidate) for part in parts]
        return abi.Model(
            *(student.first, student.width, len(tables), len(mine), len(theirs), len(layers)),
            *(len(request.keys), len(request.bags), sum(f.dim for f in request.numbers)),
            *(len(stacked.matrix), len(stacked.weight), sum(part.term.name in self._whole for part in parts)),
            len(stacked.weight) - len(stacked.constant),
            self._structs(abi.Table, tables),
            self._structs(abi.Term, mine),
            self._structs(abi.Term, theirs),
            self._structs(abi.Layer, layers),
            self._keep(constants(student, stacked)),
            None if stacked.rotation is None else self._keep(stacked.rotation),
            self._keep(stacked.matrix),
            self._keep(stacked.constant),
            self._keep(stacked.weight),
            slope,
            offset,
        )

    def _layer(self, layer: Layer) -> abi.Layer:
        coded: tuple[int | None, int | None] = None, None
        if layer.coded is not None:
            coded = self._keep(pairs(layer.coded.codes.T), np.int32), self._keep(layer.coded.scales)
        return abi.Layer(*layer.weight.T.shape, self._keep(layer.weight.T), self._keep(layer.bias), *coded)

    def _table(self, name: str, student: CompiledStudent) -> abi.Table:
        if name not in student.tables:  # rows that refine: nobody looks them up by key
            rows = student.tables[name.removeprefix(_more(""))]
            assert isinstance(rows, RefinedRows)
            return self._coded_table(rows.more, KeyIndex.build(np.zeros(0, np.int64))[0])
        table = student.tables[name]
        if not isinstance(table, RefinedRows):
            return self._coded_table(table, student.indexes[name])
        made = self._coded_table(table.base, student.indexes[name])
        made.more_rows, made.more_bytes = self._keep(table.codes, table.codes.dtype), table.codes.itemsize
        made.more = self._number(_more(name))
        return made

    def _coded_table(self, table: Any, index: KeyIndex) -> abi.Table:
        top, width = layout(len(index), index.kept)
        starts, rests = np.ascontiguousarray(index.starts), np.ascontiguousarray(index.rests)
        data = np.ascontiguousarray(table.data)
        self._kept += [starts, rests, data]
        entry = abi.Index(
            *(index.base, len(index), len(starts) - 1, index.bits, index.kept, top, width),
            abi.address(starts),
            abi.address(rests),
        )
        return abi.Table(abi.address(data), table.rows, table.dim, table.bits, entry, None, 0, 0)

    def _number(self, table: str | None) -> int:
        return self._tables.index(table) if table is not None else 0

    def _request_term(self, term: Term, parts: Affine, slots: Slots) -> abi.Term:
        if term.kind == "bag":
            source, slot = abi.BAG, [f.name for f in slots.bags].index(term.field)
        elif term.kind == "row":
            source, slot = abi.KEY, [f.name for f in slots.keys].index(term.field)
        else:
            names = [f.name for f in slots.numbers]
            source, slot = abi.NUMBERS, sum(f.dim for f in slots.numbers[: names.index(term.field)])
        maps = self._keep(parts.matrix), self._keep(parts.mean)
        return abi.Term(
            source, slot, self._number(term.table), len(parts.matrix), parts.square, 0, None, *maps, None, None
        )

    def _candidate_term(self, student: CompiledStudent, part: "_Part", slots: Slots) -> abi.Term:
        term, parts, codes = part.term, part.affine, part.codes
        source, slot = (abi.ITEM, 0) if codes is None else (abi.CODES, 0)
        if term.table is None:
            source, slot = abi.NUMBERS, [f.name for f in slots.numbers].index(term.field)
        elif term.side == "candidate":
            source, slot = abi.KEY, [f.name for f in slots.keys].index(term.field)
        where = (None, 0) if codes is None else (self._keep(codes, codes.dtype), codes.itemsize)
        common = source, slot, self._number(part.table), len(parts.matrix), parts.square
        whole: tuple[int | None, int | None] = None, None
        if term.name in self._whole:
            found = grid(student.arrays[f"basis.{term.view}"][:, : student.first])
            whole = self._keep(pairs(found.codes[: len(parts.matrix)]), np.int32), self._keep(found.step)
        return abi.Term(*common, where[1], where[0], None, None, *whole)

    def score(
        self, requests: Sequence[Request], items: Sequence[Keys], features: Sequence[Features], *, logits: bool
    ) -> tuple[list[Floats], dict[str, int]]:
        """Return logits or probabilities per request, and how many lookups of each field used its fallback row."""
        ends = list(accumulate(map(len, items)))
        bags = [bag for request in requests for bag in request.bags]
        bag_ends = list(accumulate(map(len, bags)))
        keys = [key for request in requests for key in request.keys]
        if len(items) != len(requests) or len(features) != len(requests):
            raise ValueError(f"{len(requests)} requests with {len(items)} candidate lists")
        # One array for all small integers: NumPy takes a microsecond to tell where an array lies.
        integers = array("q", keys + bag_ends + ends)
        for bag in bags:
            integers.frombytes(bag.tobytes())
        at = integers.buffer_info()[0]
        parts = [at + 8 * n for n in accumulate((0, len(keys), len(bag_ends), len(ends)))]
        numbers = _joined([r.numbers for r in requests], np.float32) if self.model.numbers else None
        candidates = _joined(items, np.int64)
        columns, pointers = self._columns_of(features, len(candidates))
        out = np.empty(len(candidates), dtype=np.float32)
        misses = self.misses()
        self._check_sizes(len(requests), len(keys), len(bags), 0 if numbers is None else numbers.size)
        failed = self.library.score(
            self.model,
            len(requests),
            *parts,
            None if numbers is None else numbers.ctypes.data,
            candidates.ctypes.data,
            *pointers,
            not logits,
            out.ctypes.data,
            misses,
        )
        del columns  # alive until here, for its pointers
        if failed:
            raise MemoryError("the scoring kernel found no memory to work in")
        scores = [out] if len(items) == 1 else [out[a:b] for a, b in pairwise([0, *ends])]
        return scores, self.counted(misses)

    def _check_sizes(self, requests: int, keys: int, bags: int, numbers: int) -> None:
        """Raise ValueError unless every request holds all it should: the kernel trusts lengths."""
        model = self.model
        if (keys, bags, numbers) != (requests * model.keys, requests * model.bags, requests * model.numbers):
            raise ValueError(
                f"{requests} request(s) hold {keys} keys, {bags} bags and {numbers} numbers; this model takes "
                f"{model.keys}, {model.bags} and {model.numbers} each"
            )

    def counted(self, misses: Any) -> dict[str, int]:
        """Return what a call counted into `misses()`, by field."""
        counted: dict[str, int] = {}
        for field, missed in zip(self._fields, misses[:], strict=True):
            if missed:
                counted[field] = counted.get(field, 0) + missed
        return counted

    def _columns_of(self, features: Sequence[Features], rows: int) -> tuple[list[Any], tuple[Any, Any]]:
        """Return the candidate-side values of all requests, and pointers to them."""
        if not self._columns and not self._dims:
            return [], (None, None)
        keys = [_joined([f.keys[i] for f in features], np.int64) for i in range(self._columns)]
        numbers = [_joined([f.numbers[i] for f in features], np.float32) for i in range(len(self._dims))]
        right = all(k.shape == (rows,) for k in keys) and all(
            x.shape == (rows, dim) for x, dim in zip(numbers, self._dims, strict=True)
        )
        if not right:
            raise ValueError(f"candidate-side values do not have one row for each of {rows} candidates")
        pointers = [
            (ctypes.c_void_p * max(1, len(arrays)))(*(abi.address(a) for a in arrays)) for arrays in (keys, numbers)
        ]
        return [*keys, *numbers], (pointers[0], pointers[1])


def _joined(arrays: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    """Return arrays one after another, as `kind` and without gaps; the one array itself where there is one."""
    if not arrays:
        return np.empty(0, dtype=kind)
    return np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), dtype=kind)
