"""An encoded log: memory-mapped columns, rows in time order, splits as contiguous ranges.

Folder: meta.json; rows/<column>.npy [N], for bags rows/<field>.{values,offsets}.npy; items/<field>... one entry per
item, the unknown item last; keys/<vocabulary>.npy sorted int64; traffic/<field>.npy float64 training lookups per
vocabulary row; quarantine.parquet where rows were bad.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.batch import Bag, Batch
from recsys_kd.data.counts import Counts
from recsys_kd.data.traffic import lookups
from recsys_kd.errors import InputError
from recsys_kd.schema import ITEM, Field, Schema

SPLITS = ("train", "validation", "test")
QUARANTINE = "quarantine.parquet"
_BLOCK = 1_000_000


class NotADataset(InputError):
    """A folder does not hold an encoded log."""


def gather_bag(bag: Bag, rows: NDArray[np.int64]) -> Bag:
    """Return the bags of `rows`, in that order."""
    starts = bag.offsets[rows]
    lengths = bag.offsets[rows + 1] - starts
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return Bag(np.asarray(bag.values[index], dtype=np.int64), offsets)


@dataclass(frozen=True)
class Dataset:
    """Rows of an encoded log; opening reads no rows."""

    path: Path
    schema: Schema
    splits: Mapping[str, range]
    counts: Counts
    length: int
    columns: tuple[str, ...]

    @staticmethod
    def open(path: Path) -> "Dataset":
        """Map an encoded log. Raises: NotADataset."""
        try:
            meta = json.loads((path / "meta.json").read_text())
        except (OSError, ValueError) as error:
            raise NotADataset(f"{path}: no encoded log ({error}); run the read stage again") from None
        return Dataset(
            path,
            Schema.from_json(meta["schema"]),
            {name: range(*bounds) for name, bounds in meta["splits"].items()},
            Counts.from_json(meta["counts"]),
            meta["length"],
            tuple(meta["columns"]),
        )

    def __len__(self) -> int:
        return self.length

    @cached_property
    def _maps(self) -> dict[str, NDArray[np.generic]]:
        return {}

    def _load(self, name: str) -> NDArray[np.generic]:
        if name not in self._maps:
            path = self.path / f"{name}.npy"
            empty = path.stat().st_size < 200 and np.load(path).size == 0
            self._maps[name] = np.load(path) if empty else np.load(path, mmap_mode="r")
        return self._maps[name]

    def column(self, name: str) -> NDArray[np.generic]:
        """Return a whole column [N], mapped: label, weight, row_id, user, request, item, timestamp, or another."""
        if name == "weight" and name not in self.columns:
            return np.broadcast_to(np.float32(1), self.length)
        return self._load(f"rows/{name}")

    def keys(self, vocabulary: str) -> NDArray[np.int64]:
        """Return the sorted keys of a vocabulary's rows, fallback not included; `item` gives the item rows' keys."""
        return self._load(f"keys/{vocabulary}").astype(np.int64, copy=False)

    def traffic(self, field: str) -> NDArray[np.float64]:
        """Return training lookups per vocabulary row, fallback last.

        One of a bag's L values counts 1 / L^2: it moves the pooled mean by 1 / L, and what is summed is squared error.
        """
        return self._load(f"traffic/{field}").astype(np.float64, copy=False)

    def recent_traffic(self, field: str, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `traffic` of a field, or of `item`, where every training row counts its weight [training rows]."""
        train, size = self.splits["train"], len(self._load(f"traffic/{field}"))
        if field == "item":
            return lookups(self.item_rows[train.start : train.stop], size, weight)
        found = self.schema.field(field)
        if found.side == "item":
            shown = self.recent_traffic("item", weight)
            return lookups(self.item_bag(field) if found.kind == "bag" else self.item_ids(field), size, shown)
        total = np.zeros(size)
        for start in range(train.start, train.stop, _BLOCK):
            rows = slice(start, min(start + _BLOCK, train.stop))
            total += lookups(
                self._looked_up(found, rows), size, weight[rows.start - train.start :][: rows.stop - start]
            )
        return total

    def unknown_share(self, field: str, rows: range) -> float:
        """Return what share of a request's or candidate's field's lookups in some rows is of ids without a row."""
        found, unknown, total = self.schema.field(field), 0, 0
        for start in range(rows.start, rows.stop, _BLOCK):
            coded = self._looked_up(found, slice(start, min(start + _BLOCK, rows.stop)))
            ids = coded if isinstance(coded, np.ndarray) else coded.values
            unknown, total = unknown + int(np.count_nonzero(ids == self.schema.rows(found) - 1)), total + len(ids)
        return unknown / max(total, 1)

    def _looked_up(self, field: Field, rows: slice) -> Bag | NDArray[np.int64]:
        """Return the vocabulary rows of a request-side or candidate-side field in some rows."""
        if field.kind != "bag":
            return self._lookups(field, self.column(field.name)[rows].astype(np.int64), catalogue=False)
        bag = self._bag("rows", field.name)
        offsets = np.asarray(bag.offsets[rows.start : rows.stop + 1])
        values = np.asarray(bag.values[offsets[0] : offsets[-1]], dtype=np.int64)
        return Bag(self._lookups(field, values, catalogue=False), offsets - offsets[0])

    def item_ids(self, field: str) -> NDArray[np.int64]:
        """Return the vocabulary row of every item, unknown item last; `item_id` gives embedding rows."""
        return self._load(f"items/{field}").astype(np.int64)

    def category(self, field: str) -> NDArray[np.int64]:
        """Return the vocabulary row of a categorical field in every log row [N], whichever side it is on."""
        if self.schema.field(field).side == "item":
            return self.item_ids(field)[self.item_rows]
        return self._lookups(self.schema.field(field), self.column(field).astype(np.int64), catalogue=False)

    def item_bag(self, field: str) -> Bag:
        """Return an item-side bag field over all items, unknown item (empty) last."""
        return self._bag("items", field)

    def item_dense(self, field: str) -> NDArray[np.float32]:
        """Return a standardized item-side field [items + 1, dim]."""
        return np.asarray(self._load(f"items/{field}"), dtype=np.float32)

    def _bag(self, where: str, field: str) -> Bag:
        values, offsets = self._load(f"{where}/{field}.values"), self._load(f"{where}/{field}.offsets")
        return Bag(values, offsets)  # type: ignore[arg-type]

    def _lookups(self, field: Field, rows: NDArray[np.int64], catalogue: bool) -> NDArray[np.int64]:
        unknown = self.schema.rows(field) - 1
        return rows if catalogue or field.vocabulary != ITEM else np.minimum(rows, unknown)

    def batch(self, rows: slice | NDArray[np.int64], *, catalogue: bool = False) -> Batch:
        """Return any rows, in the order given.

        Items of a request (its history, say) that training never saw are unknown, vocabulary row V. With `catalogue`
        those that have an item row i have V + 1 + i: served models know them by what the catalogue says of them.
        """
        index = np.arange(*rows.indices(self.length)) if isinstance(rows, slice) else rows
        item = self.column("item")[index].astype(np.int64)
        ids, bags, dense = {}, {}, {}
        for field in self.schema.fields:
            where, at = ("items", item) if field.side == "item" else ("rows", index)
            if field.kind == "bag":
                bag = gather_bag(self._bag(where, field.name), at)
                bags[field.name] = Bag(self._lookups(field, bag.values, catalogue), bag.offsets)
            elif field.is_lookup:
                found = self._load(f"{where}/{field.name}")[at].astype(np.int64)
                ids[field.name] = self._lookups(field, found, catalogue)
            else:
                dense[field.name] = np.asarray(self._load(f"{where}/{field.name}")[at], dtype=np.float32)
        weight = self.column("weight")[index] if "weight" in self.columns else np.ones(len(index), dtype=np.float32)
        return Batch(
            ids,
            bags,
            dense,
            label=np.asarray(self.column("label")[index], dtype=np.float32),
            weight=np.asarray(weight, dtype=np.float32),
            row_id=self.column("row_id")[index].astype(np.int64),
            user=self.column("user")[index].astype(np.int64),
            request=self.column("request")[index].astype(np.int64),
            timestamp=self.column("timestamp")[index].astype(np.int64),
        )

    def batches(
        self, rows: range, batch_size: int, seed: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Yield `rows` in batches: in order without a seed, shuffled with one; each of `world` ranks gets its share."""
        order = np.arange(rows.start, rows.stop)
        if seed is not None:
            order = np.random.default_rng(seed).permutation(order)
        share = order[rank::world]
        for start in range(0, len(share), batch_size):
            yield self.batch(share[start : start + batch_size])

    @property
    def quarantine(self) -> Path | None:
        """The Parquet file of the bad rows with their reasons, None where every row was good."""
        path = self.path / QUARANTINE
        return path if path.exists() else None

    @property
    def item_rows(self) -> NDArray[np.int64]:
        """Return the item row of every log row [N]."""
        return self.column("item").astype(np.int64)
