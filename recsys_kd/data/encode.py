"""From raw logs to a `Dataset`: vocabularies from the training days only, rows in time order.

Memory: rows stream to disk in arrival order; sorting then holds the order (8 bytes a row) and one column at a time.
"""

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.data.checks import Canonical
from recsys_kd.data.columns import ColumnFiles, create, gather, rows_of
from recsys_kd.data.convert import TextKeys, is_text
from recsys_kd.data.dataset import Dataset
from recsys_kd.data.items import RawBag, RawField, bag_of, categories_of, lookup_rows, read_catalogue, spread
from recsys_kd.data.layout import Layout, column_of
from recsys_kd.data.read import Scan, open_log, scan, usable
from recsys_kd.data.split import split_bounds, split_rank
from recsys_kd.data.traffic import training_traffic
from recsys_kd.errors import InputError, OutsideError
from recsys_kd.ids import mix
from recsys_kd.progress import SILENT, Progress
from recsys_kd.schema import ITEM, USER, Field, KeyKind, Schema, Vocabulary
from recsys_kd.settings import DataConfig, FieldConfig, SplitConfig

Ints = NDArray[np.int64]


class ConstantLabel(InputError):
    """Every training label is the same: there is nothing to learn."""


def encode(
    config: DataConfig,
    split: SplitConfig,
    out: Path,
    progress: Progress = SILENT,
    extra: Mapping[str, str] | None = None,
    quarantine: Path | None = None,
) -> Dataset:
    """Read, check and encode a log into the folder `out`, which appears whole or not at all.

    extra: further float columns to store, name -> log column. Bad rows go to the file `quarantine`, by default
    `<out>.quarantine.parquet`; name another where a run that stops would take the folder of `out` away with it.
    Raises: InputError subclasses for anything wrong with log or recipe; OutsideError where `out` can't be written.
    """
    log = open_log(config, split, extra)
    quarantine = quarantine or out.with_name(out.name + ".quarantine.parquet")
    building = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        building.mkdir(parents=True)
        found = scan(log, quarantine, progress)
        found.counts.check_threshold(config.max_quarantine, str(quarantine))
        encoder = _Encoder(found, split, building, progress)
        try:
            encoder.run()
        finally:
            encoder.raw.close()
        if out.exists():
            shutil.rmtree(out)
        building.rename(out)
    except OSError as error:
        raise OutsideError(f"{out}: {error}; free space or choose another `work` folder") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Dataset.open(out)


@dataclass
class _Encoder:
    found: Scan
    split: SplitConfig
    out: Path
    progress: Progress

    def __post_init__(self) -> None:
        self.raw = ColumnFiles(self.out / "raw")

    def run(self) -> None:
        """Encode everything into `out`."""
        self.config: DataConfig = self.found.log.config
        self.layout: Layout = self.found.log.layout
        self.lengths: dict[str, list[Ints]] = {}
        self._spill_rows()
        self._sort()
        self._check_labels()
        self._items()
        self.keys: dict[str, Ints] = {}
        self.fields: list[Field] = []
        self._vocabularies()
        self._rows()
        self._finish()

    # Pass 2: arrival order, raw keys.

    def _spill_rows(self) -> None:
        text = {f.name: TextKeys() for f in self.layout.log_fields}
        used = 0
        for batch, rows in usable(self.found, self.progress):
            used += len(rows.user)
            self._spill(batch, rows, text)
        self.raw.close()
        self.found.counts.used = used
        self.found.counts.check_sum()

    def _spill(self, batch: pa.RecordBatch, rows: Canonical, text: dict[str, TextKeys]) -> None:
        request = mix(rows.user, rows.timestamp) if rows.request is None else rows.request
        for key, ids in (("user", rows.user), ("item", rows.item), ("timestamp", rows.timestamp)):
            self.raw.append(key, ids)
        self.raw.append("label", rows.label)
        self.raw.append("request", request)
        self.raw.append("row_id", rows.hashes())
        for name, values in {**rows.numbers, **rows.vectors}.items():
            self.raw.append(f"f.{name}", values)
        if self.split.column:
            self.raw.append("split", split_rank(batch.column(self.split.column), self.split.column))
        for field in self.layout.log_fields:
            if field.kind == "categorical":
                self.raw.append(f"f.{field.name}", categories_of(batch.column(column_of(field)), text[field.name]))
            elif field.kind == "bag":
                bag = bag_of(batch.column(column_of(field)), field.max_length, text[field.name])
                self.raw.append(f"f.{field.name}", bag.values)
                self.lengths.setdefault(field.name, []).append(np.diff(bag.offsets))

    # Time order and splits.

    def _sort(self) -> None:
        stamp, request = self.raw.read("timestamp"), self.raw.read("request")
        ranks = (self.raw.read("split"),) if self.split.column else ()
        self.order: Ints = np.lexsort((request, stamp, *ranks))
        sorted_time = np.asarray(stamp[self.order], dtype=np.int64)
        sorted_rank = np.asarray(ranks[0][self.order], dtype=np.int64) if ranks else None
        self.bounds = split_bounds(sorted_time, sorted_rank, self.split)
        self.train = self.bounds["train"]

    def _sorted(self, name: str, part: range | None = None) -> NDArray[np.generic]:
        order = self.order if part is None else self.order[part.start : part.stop]
        return np.asarray(self.raw.read(name)[order])

    def _check_labels(self) -> None:
        label = self._sorted("label", self.train)
        if label.min() == label.max():
            raise ConstantLabel(
                f"data.columns.label: all {len(label):,} training rows have label {label[0]:g}; "
                "name a column that holds both outcomes (positives only: see `recsys-kd import`)"
            )

    # Items.

    def _items(self) -> None:
        catalogue_keys, fields = read_catalogue(self.config, self.layout.item_fields)
        seen = np.unique(self._sorted("item", self.train))
        self.item_keys = np.union1d(catalogue_keys, seen)
        self.missing_items = len(np.setdiff1d(seen, catalogue_keys)) if self.config.catalogue else 0
        at = np.append(rows_of(self.item_keys, catalogue_keys), len(catalogue_keys))
        self.item_raw: dict[str, RawField] = spread(fields, at, len(catalogue_keys))
        self.item_row = rows_of(self._sorted("item").astype(np.int64), self.item_keys)
        last = np.full(len(self.item_keys) + 1, self.train.stop, dtype=np.int64)
        last[self.item_row[: self.train.stop]] = np.arange(self.train.stop)
        for field in self.layout.log_fields:
            if field.side == "item":
                shown = self._raw_sorted(field, self.train)
                self.item_raw |= spread({field.name: shown}, last, self.train.stop)

    def _raw_sorted(self, field: FieldConfig, part: range | None = None) -> RawField:
        if field.kind != "bag":
            return self._sorted(f"f.{field.name}", part)
        order = self.order if part is None else self.order[part.start : part.stop]
        lengths = np.concatenate(self.lengths[field.name])
        bag = RawBag(np.asarray(self.raw.read(f"f.{field.name}")), np.concatenate([[0], np.cumsum(lengths)]))
        only = spread({field.name: bag}, order, len(lengths))[field.name]
        assert isinstance(only, RawBag)
        return only

    # Vocabularies, from training rows only.

    def _vocabularies(self) -> None:
        kinds = self.layout.types
        self._vocabulary(USER, self._sorted("user", self.train), kinds[USER])
        self._vocabulary(ITEM, self._sorted("item", self.train), kinds[ITEM])
        self.fields += [Field(USER, "id", "request", USER), Field(ITEM, "id", "item", ITEM)]
        own = [f for f in self.config.fields if f.kind in ("categorical", "bag") and f.vocabulary in (None, f.name)]
        for field in own:
            self._vocabulary(field.name, self._training_keys(field), self._key_type(field), floor=field.side != "item")
        for field in self.config.fields:
            self.fields.append(self._field(field))

    def _training_keys(self, field: FieldConfig) -> NDArray[np.generic]:
        raw = self.item_raw[field.name] if field.side == "item" else self._raw_sorted(field, self.train)
        return raw.values if isinstance(raw, RawBag) else raw

    def _key_type(self, field: FieldConfig) -> pa.DataType:
        return self.layout.types[field.name]

    def _vocabulary(self, name: str, keys: NDArray[np.generic], kind: pa.DataType, floor: bool = True) -> None:
        known, counts = np.unique(keys, return_counts=True)
        enough = counts >= (self.config.min_count if floor else 1)
        known = known[enough & (known != np.iinfo(np.int64).min)]
        self.keys[name] = known.astype(np.int64)
        inner = getattr(kind, "value_type", None) if not pa.types.is_dictionary(kind) else None
        self.kind_of = {**getattr(self, "kind_of", {}), name: _key_kind(inner or kind)}

    def _field(self, field: FieldConfig) -> Field:
        if field.kind in ("categorical", "bag"):
            return Field(
                field.name, field.kind, field.side, field.vocabulary or field.name, max_length=field.max_length
            )
        if field.kind == "vector":
            return Field(field.name, "vector", field.side, dim=field.dim)
        raw = self.item_raw[field.name] if field.side == "item" else self._sorted(f"f.{field.name}", self.train)
        values = np.asarray(raw, dtype=np.float64)
        values = values[np.isfinite(values)]
        mean, std = (float(values.mean()), float(values.std())) if len(values) else (0.0, 1.0)
        return Field(field.name, "dense", field.side, mean=mean, std=std if std > 1e-12 else 1.0)

    # The data set's own columns.

    def _rows(self) -> None:
        rows, n = self.out / "rows", len(self.order)
        gather(self.raw.read("timestamp"), self.order, rows / "timestamp.npy")
        gather(self.raw.read("label"), self.order, rows / "label.npy")
        gather(self.raw.read("row_id"), self.order, rows / "row_id.npy")
        for name in ("user", "request"):
            codes = np.unique(self._sorted(name), return_inverse=True)[1]
            create(rows / f"{name}.npy", np.int64, (n,))[:] = codes
        create(rows / "item.npy", np.int32, (n,))[:] = self.item_row
        stored = {f.name for f in self.config.fields}
        self.columns = ["timestamp", "label", "row_id", "user", "request", "item"]
        for name in [c.removeprefix("f.") for c in self.raw.files if c.startswith("f.")]:
            if name not in stored:
                gather(self.raw.read(f"f.{name}"), self.order, rows / f"{name}.npy")
                self.columns.append(name)
        for field in self.fields:
            self._write_field(field)
        for name, keys in {**self.keys, "item": self.item_keys}.items():
            self._save(f"keys/{name}", keys)
        counts = np.bincount(self.item_row[: self.train.stop], minlength=len(self.item_keys) + 1)
        self._save("traffic/item", counts.astype(np.float64))

    def _write_field(self, field: Field) -> None:
        by_name = {f.name: f for f in self.config.fields}
        if field.name == USER:
            raw: RawField = self._sorted("user")
        elif field.name == ITEM:
            raw = np.append(self.item_keys, np.iinfo(np.int64).min)
        elif field.side == "item":
            raw = self.item_raw[field.name]
        else:
            raw = self._raw_sorted(by_name[field.name])
        where = "items" if field.side == "item" else "rows"
        if field.vocabulary is None:
            values = np.asarray(raw, dtype=np.float32)
            if field.kind == "dense":
                values = np.nan_to_num((values - np.float32(field.mean)) / np.float32(field.std))[:, None]
            self._save(f"{where}/{field.name}", values)
            return
        coded = lookup_rows(raw, self.keys[field.vocabulary])
        if isinstance(coded, RawBag):
            self._save(f"{where}/{field.name}.values", coded.values.astype(np.int32))
            self._save(f"{where}/{field.name}.offsets", coded.offsets.astype(np.int64))
        else:
            self._save(f"{where}/{field.name}", coded.astype(np.int32))
        size = len(self.keys[field.vocabulary]) + 1
        self._save(f"traffic/{field.name}", training_traffic(field, coded, self.item_row[: self.train.stop], size))

    def _save(self, name: str, values: NDArray[np.generic]) -> None:
        path = self.out / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)

    def _finish(self) -> None:
        vocabularies = {n: Vocabulary(n, len(k) + 1, self.kind_of[n]) for n, k in self.keys.items()}
        schema = Schema(tuple(self.fields), vocabularies)
        meta = {
            "schema": schema.to_json(),
            "splits": {name: [r.start, r.stop] for name, r in self.bounds.items()},
            "counts": self.found.counts.to_json(),
            "length": len(self.order),
            "columns": self.columns,
            "missing_items": self.missing_items,
        }
        shutil.rmtree(self.out / "raw")
        (self.out / "meta.json").write_text(json.dumps(meta))


def _key_kind(kind: pa.DataType) -> KeyKind:
    return "string" if is_text(kind) else "int64"
