"""Compiled students of any shape with random weights, made without training."""

from dataclasses import dataclass

import numpy as np

from recsys_kd.index import KeyIndex
from recsys_kd.schema import Field, Schema, Side, Vocabulary
from recsys_kd.tables import (
    Activations,
    Bits,
    CodedRows,
    CompiledStudent,
    RefinedRows,
    Term,
    code_bytes,
    code_matrix,
    nothing_row,
)


@dataclass(frozen=True)
class Shape:
    """What a student is made of; `rank` and `bits` are the item table's, others have 5 and 8."""

    items: int = 300
    users: int = 50
    width: int = 6
    first: int = 9
    hidden: tuple[int, ...] = (5,)
    rank: int = 7
    bits: Bits = 8
    strings: bool = False
    sparse: bool = False
    """Ids spread over all of int64 instead of 0 .. N-1."""
    candidate: bool = False
    """With candidate-side fields of every kind, and item-side ones with tables of their own."""
    dense: bool = False
    """With request-side dense and vector fields."""
    tiers: Bits | None = None
    """Bits of the rows that refine a third of the rows of users, items and categories, with two numbers more."""
    plain: bool = False
    """With float32 matrices instead of int8 codes, which artifacts hold."""
    activations: Activations = "int16"


def coded(rng: np.random.Generator, rows: int, dim: int, bits: Bits, reach: float = 1.0) -> CodedRows:
    """Return a table of random codes, its values within about 1.5 `reach` of zero."""
    codes = rng.integers(0, 256, (rows, code_bytes(dim, bits)), dtype=np.uint8)
    scale = (rng.uniform(0.5, 1.5, (rows, 1)) * 2 * reach / (2**bits - 1)).astype(np.float16)
    data = np.concatenate([codes, scale.view(np.uint8)], axis=1)
    return CodedRows(data, bits, dim)


def refined(rng: np.random.Generator, base: CodedRows, bits: Bits) -> RefinedRows:
    """Return a table of which about a third of the rows, and the last, are refined with two numbers more."""
    hot = np.append(rng.random(base.rows - 1) < 0.3, True)
    more = coded(rng, int(hot.sum()), base.dim + 2, bits, 0.2).data
    more = np.concatenate([more, nothing_row(base.dim + 2, bits)])
    return RefinedRows(base, CodedRows(more, bits, base.dim + 2), np.packbits(hot, bitorder="little"))


class Maker:
    """Collects the parts of a student."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape, self.rng = shape, np.random.default_rng(seed)
        self.fields: list[Field] = []
        self.vocabularies: dict[str, Vocabulary] = {}
        self.terms: list[Term] = []
        self.tables: dict[str, CodedRows | RefinedRows] = {}
        self.indexes: dict[str, KeyIndex] = {}
        self.keys: dict[str, np.ndarray] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.codes: dict[str, np.ndarray] = {}

    def weights(self, *shape: int) -> np.ndarray:
        """Return weights that keep logits as small as those of a click model, within about 5 of zero."""
        return (self.rng.normal(size=shape) * 0.35 / np.sqrt(shape[0] if len(shape) > 1 else 1)).astype(np.float32)

    def table(self, name: str, rows: int, dim: int, bits: Bits, *, hashed: bool = False) -> None:
        """Add a table of `rows` keys and a fallback."""
        wide = hashed or self.shape.sparse
        keys = np.unique(self.rng.integers(-(2**63), 2**63 - 1, rows)) if wide else np.arange(rows)
        index, order = KeyIndex.build(keys)
        self.tables[name], self.indexes[name] = coded(self.rng, len(keys) + 1, dim, bits), index
        self.keys[name] = keys[order]
        if self.shape.tiers and name in ("user_id", "item", "category.folded"):
            self.tables[name] = refined(self.rng, self.tables[name], self.shape.tiers)

    def view(self, name: str, table: str, dim: int) -> str:
        """Add a view of a table, and return its name."""
        self.arrays[f"basis.{name}"] = self.weights(self.tables[table].dim, dim)
        self.arrays[f"mean.{name}"] = self.weights(dim)
        return name

    def field(
        self, name: str, kind: str, side: Side, *, strings: bool = False, vocabulary: str | None = None, dim: int = 1
    ) -> None:
        """Add a field, and its vocabulary unless it shares one."""
        lookup = kind in ("id", "categorical", "bag")
        if lookup and vocabulary is None:
            self.vocabularies[name] = Vocabulary(name, 1, "string" if strings else "int64")
        mean, std = (0.5, 2.0) if kind == "dense" else (0.0, 1.0)
        self.fields.append(Field(name, kind, side, vocabulary or (name if lookup else None), dim, mean, std))

    def compact(self, name: str, side: Side, kind: str, table: str) -> None:
        """Add a term whose rows are embeddings."""
        view = self.view(f"{name}.compact", table, self.shape.width + 1)
        self.arrays[f"first.{name}"] = self.weights(self.shape.first, self.shape.width)
        self.terms.append(Term(name, name, side, kind, table, view, "compact"))

    def folded(self, name: str, side: Side, table: str) -> None:
        """Add a term whose rows hold what they add."""
        view = self.view(f"{name}.folded", table, self.shape.first + self.shape.width + 1)
        self.terms.append(Term(name, name if name != "item" else "item_id", side, "row", table, view, "folded"))

    def numbers(self, name: str, side: Side, dim: int) -> None:
        """Add a dense field, or a vector of `dim` numbers."""
        s, kind = self.shape, "vector" if dim > 1 else "dense"
        self.field(name, kind, side, dim=dim)
        self.arrays[f"first.{name}"] = self.weights(s.first, s.width if dim > 1 else 1)
        self.arrays[f"linear.{name}"] = self.weights(dim)
        if dim > 1:
            self.arrays[f"project.{name}"] = self.weights(s.width, dim)
        self.terms.append(Term(name, name, side, kind))

    def head(self) -> None:
        """Add the layers."""
        last = self.shape.first
        self.arrays |= {"bias": self.weights(1), "hidden.0.bias": self.weights(last)}
        for i, out in enumerate(self.shape.hidden, 1):
            self.arrays |= {f"hidden.{i}.weight": self.weights(out, last), f"hidden.{i}.bias": self.weights(out)}
            last = out
        self.arrays |= {"out.weight": self.weights(last), "calibration": np.array([0.9, 0.1], dtype=np.float32)}


def student(shape: Shape = Shape(), seed: int = 0) -> tuple[CompiledStudent, dict[str, np.ndarray]]:
    """Return a student, and the keys that each of its tables knows."""
    m = Maker(shape, seed)
    m.field("user_id", "id", "request")
    m.field("item_id", "id", "item", strings=shape.strings)
    m.field("device", "categorical", "request", strings=True)
    m.field("history", "bag", "request", vocabulary="item_id")
    m.table("user_id", shape.users, min(5, shape.width + 1), 8)
    m.table("device.folded", 3, 5, 8, hashed=True)
    m.table("item", shape.items, shape.rank, shape.bits, hashed=shape.strings)
    m.folded("item", "item", "item")
    m.compact("user_id", "request", "row", "user_id")
    m.folded("device", "request", "device.folded")
    m.compact("history", "request", "bag", "item")
    if shape.dense:
        m.numbers("age", "request", 1)
        m.numbers("mood", "request", 4)
    if shape.candidate:
        m.field("category", "categorical", "item")
        m.table("category.folded", 12, 5, 4)
        m.folded("category", "item", "category.folded")
        m.codes["category"] = m.rng.integers(0, 13, len(m.keys["item"]) + 1).astype(np.uint8)
        m.field("position", "categorical", "candidate")
        m.table("position.folded", 20, 3, 8)
        m.folded("position", "candidate", "position.folded")
        m.field("seller", "categorical", "candidate")
        m.table("seller", 20, 3, 8)
        m.compact("seller", "candidate", "row", "seller")
        m.numbers("affinity", "candidate", 1)
        m.numbers("image", "candidate", 3)
    m.head()
    if not shape.plain:
        m.arrays = {name: code_matrix(a).values if a.ndim == 2 else a for name, a in m.arrays.items()}
    schema = Schema(tuple(m.fields), m.vocabularies)
    parts = m.tables, m.indexes, m.arrays, m.codes
    return CompiledStudent(schema, shape.width, shape.first, tuple(m.terms), *parts, shape.activations), m.keys
