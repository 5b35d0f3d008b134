"""The files of one field of an encoded log, written a block of rows at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.columns import create, rows_of
from recsys_kd.data.items import RawBag, RawField
from recsys_kd.data.ordered import Ordered, coded, ends_of
from recsys_kd.data.traffic import lookups
from recsys_kd.schema import ITEM, Field

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Places = NDArray[np.generic]


@dataclass(frozen=True)
class FieldWriter:
    """Writes under `out`: rows/, items/ and traffic/; the first `train` of `length` rows are for training."""

    out: Path
    rows: Ordered
    keys: Mapping[str, Ints]
    item_keys: Ints
    length: int
    train: int

    def codes(
        self, name: str, stored: str, known: Ints, dtype: type[np.generic], size: int = 0, among: Ints | None = None
    ) -> Floats:
        """Write each row's place among `known` keys, and return training lookups per place [size]."""
        out, traffic = create(self.out / "rows" / f"{stored}.npy", dtype, (self.length,)), np.zeros(size)
        for rows, block in self.rows.blocks(name):
            places = coded(block, known)
            assert not isinstance(places, RawBag)
            out[rows] = places if among is None else self._beyond(places, block, known, among)
            if size:
                traffic += lookups(places[: max(0, self.train - rows.start)], size)
        return traffic

    @staticmethod
    def _beyond(places: Places, keys: Places, known: Ints, among: Ints) -> Places:
        """Return places with those of unknown keys that are `among` others counted on behind: see `Dataset.batch`."""
        unknown = np.flatnonzero(places == len(known))
        found, out = rows_of(keys[unknown].astype(np.int64), among), places.copy()
        out[unknown] = np.where(found < len(among), len(known) + 1 + found, len(known))
        return out

    def row_field(self, field: Field, name: str) -> None:
        """Write a field that every row has its own value of, from the spilled column `name`."""
        if field.vocabulary is None:
            self._write_numbers(field, name)
            return
        known, among = self.keys[field.vocabulary], self.item_keys if field.vocabulary == ITEM else None
        if field.kind == "bag":
            traffic = self._write_bags(field, name, known, among)
        else:
            traffic = self.codes(name, field.name, known, np.int32, len(known) + 1, among)
        self.save(f"traffic/{field.name}", traffic)

    def _write_numbers(self, field: Field, name: str) -> None:
        out = create(self.out / "rows" / f"{field.name}.npy", np.float32, (self.length, field.dim))
        for rows, block in self.rows.blocks(name):
            out[rows] = _standard(field, block)

    def _write_bags(self, field: Field, name: str, known: Ints, among: Ints | None) -> Floats:
        where, traffic = self.out / "rows", np.zeros(len(known) + 1)
        values = create(where / f"{field.name}.values.npy", np.int32, (self._values(name),))
        offsets = create(where / f"{field.name}.offsets.npy", np.int64, (self.length + 1,))
        for rows, block in self.rows.bags(name):
            bag, start = coded(block, known), int(offsets[rows.start])
            assert isinstance(bag, RawBag) and isinstance(block, RawBag)
            told = bag.values if among is None else self._beyond(bag.values, block.values, known, among)
            values[start : start + len(told)] = told
            offsets[rows.start + 1 : rows.stop + 1] = start + bag.offsets[1:]
            inside = max(0, min(rows.stop, self.train) - rows.start)
            edges = bag.offsets[: inside + 1]
            traffic += lookups(RawBag(bag.values[: edges[-1]], edges), len(traffic))
        return traffic

    def item_field(self, field: Field, raw: RawField, shown: Floats) -> None:
        """Write an item-side field, `raw` per item, the unknown one last; `shown`: training rows per item."""
        if field.vocabulary is None:
            assert not isinstance(raw, RawBag)
            self.save(f"items/{field.name}", _standard(field, raw))
            return
        known = self.keys[field.vocabulary]
        places = coded(raw, known)
        if isinstance(places, RawBag):
            self.save(f"items/{field.name}.values", places.values)
            self.save(f"items/{field.name}.offsets", places.offsets.astype(np.int64))
        else:
            self.save(f"items/{field.name}", places)
        self.save(f"traffic/{field.name}", lookups(places, len(known) + 1, shown))

    def _values(self, name: str) -> int:
        """Return how many values all bags of a column hold."""
        ends = self.rows.raw.read(ends_of(name))
        return int(ends[-1])

    def save(self, name: str, values: NDArray[np.generic]) -> None:
        """Write <name>.npy."""
        path = self.out / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)


def _standard(field: Field, values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return a dense field [n, 1] less its mean over its standard deviation, 0 where missing; a vector as it is."""
    numbers = np.asarray(values, dtype=np.float32)
    if field.kind == "dense":
        numbers = (numbers - np.float32(field.mean)) / np.float32(field.std)
        numbers[np.isnan(numbers)] = 0.0
        return numbers[:, None]
    return numbers
