"""From raw logs to a `Dataset`: vocabularies from the training days only, rows in time order.

Memory: rows stream to disk in arrival order; sorting then holds the order (8 bytes a row) and its keys, each column is
written block by block, and the distinct users and requests are sorted (25 bytes each). Measured on 4M narrow rows with
nearly as many requests: 530 MB at the peak, mapped pages included, so some 60 bytes a row over 300 MB that do not grow.
"""

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_kd.data.checks import Canonical
from recsys_kd.data.columns import ColumnFiles, create, rows_of
from recsys_kd.data.convert import Mask, TextKeys, is_text
from recsys_kd.data.coverage import coverage
from recsys_kd.data.dataset import QUARANTINE, Dataset
from recsys_kd.data.encode_fields import FieldWriter
from recsys_kd.data.evidence import Evidence, parts_of
from recsys_kd.data.items import NULL_KEY, RawBag, RawField, bag_of, categories_of, read_catalogue, spread
from recsys_kd.data.layout import Layout, column_of
from recsys_kd.data.log import open_log
from recsys_kd.data.ordered import Ordered, distinct, distinct_keys, ends_of, moments, sorted_set
from recsys_kd.data.outline import field_of, key_kind_of
from recsys_kd.data.read import Scan, scan, usable
from recsys_kd.data.requests import disagreeing, request_columns
from recsys_kd.data.split import split_bounds, split_rank, stray_told
from recsys_kd.data.varying import Names, varying
from recsys_kd.data.vocabulary import EmptyVocabulary, frequent, too_rare
from recsys_kd.errors import OutsideError
from recsys_kd.ids import mix
from recsys_kd.progress import SILENT, Progress
from recsys_kd.schema import ITEM, LEAST_STD, USER, Field, KeyKind, Schema, Vocabulary
from recsys_kd.settings import DataConfig, FieldConfig, SplitConfig

Ints = NDArray[np.int64]


def encode(
    config: DataConfig,
    split: SplitConfig,
    out: Path,
    progress: Progress = SILENT,
    extra: Mapping[str, str] | None = None,
    quarantine: Path | None = None,
) -> Dataset:
    """Read, check and encode a log into the folder `out`, which appears whole or not at all.

    extra: further float columns to store, name -> log column. Bad rows lie in `out` (see `Dataset.quarantine`); those
    of a run that stops are left in the file `quarantine`, by default `<out>.quarantine.parquet`. Temporary files lie
    beside `out`: about 8 bytes a row for hashes, then every used column once more.
    Raises: InputError subclasses for anything wrong with log or recipe; OutsideError where `out` can't be written.
    """
    log = open_log(config, split, extra)
    quarantine = quarantine or out.with_name(out.name + ".quarantine.parquet")
    building = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        building.mkdir(parents=True)
        quarantine.unlink(missing_ok=True)
        found = scan(log, building / QUARANTINE, building / "spill", progress)
        found.check(str(quarantine))
        found.counts.check_used(str(quarantine))
        (building / "spill").rmdir()
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
        _keep(building / QUARANTINE, quarantine)
        shutil.rmtree(building, ignore_errors=True)
    return Dataset.open(out)


def _keep(found: Path, quarantine: Path) -> None:
    """Move the bad rows of a run that stopped to where they can be looked at."""
    if found.exists():
        quarantine.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found, quarantine)


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
        self.schema_kinds: dict[str, KeyKind] = {}
        self._spill_rows()
        self._sort()
        self._check_labels()
        self._items()
        self.keys: dict[str, Ints] = {}
        self.fields: list[Field] = []
        self._vocabularies()
        self._rows()
        self._requests()
        self._finish()

    # Pass 2: arrival order, raw keys.

    def _spill_rows(self) -> None:
        text = {f.name: TextKeys() for f in self.layout.log_fields}
        self.own = tuple(f for f in self.layout.log_fields if f.side == "item")
        # Of the texts that keys were made of, those that a message may have to name.
        self.text = {f.name: text[f.name] for f in self.own}
        self.ids = self.found.text.get("item_id") if self.own and is_text(self.layout.types[ITEM]) else None
        self.held = dict.fromkeys(text, 0)
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
                self.raw.append(ends_of(f"f.{field.name}"), self.held[field.name] + bag.offsets[1:])
                self.held[field.name] += int(bag.offsets[-1])

    # Time order and splits.

    def _sort(self) -> None:
        stamp, request = self.raw.read("timestamp"), self.raw.read("request")
        ranks = (self.raw.read("split"),) if self.split.column else ()
        self.rows = Ordered(self.raw, np.lexsort((request, stamp, *ranks)))
        self.length = len(self.rows.order)
        self.columns = ["timestamp"]
        del stamp, request
        self.stamp = self._column("timestamp")
        sorted_rank = np.concatenate([b for _, b in self.rows.blocks("split")]) if ranks else None
        self.bounds = split_bounds(self.stamp, sorted_rank, self.split)
        self.train = self.bounds["train"]

    def _column(self, name: str, stored: str | None = None) -> NDArray[np.generic]:
        """Write a spilled column in time order to rows/<stored>.npy and return it, mapped."""
        source = self.raw.read(name)
        out = create(self.out / "rows" / f"{stored or name}.npy", source.dtype, (self.length, *source.shape[1:]))
        for rows, block in self.rows.blocks(name):
            out[rows] = block
        return out

    def _check_labels(self) -> None:
        self.columns.append("label")
        label = self._column("label")
        held = {name: Evidence() for name in self.bounds}
        for name, part in self.bounds.items():
            held[name].add(self.stamp[part.start : part.stop], label[part.start : part.stop])
        for name, found in held.items():
            found.check_varies(name, stray_told(parts_of(held), self.split))
            self.found.counts.soft_labels += found.soft
        del self.stamp

    # Items.

    def _items(self) -> None:
        catalogue = read_catalogue(self.config, self.layout.item_fields)
        self.found.counts.bad_items = catalogue.bad
        seen, self.item_counts = distinct(self.rows.keys("item", self.train, bag=False))
        self.item_keys = sorted_set(np.sort(np.concatenate([catalogue.keys, seen])))
        known = len(catalogue.keys)
        at = np.append(rows_of(self.item_keys, catalogue.keys), known)
        self.item_raw: dict[str, RawField] = spread(catalogue.fields, at, known)
        self.item_seen = seen
        self.columns.append("item")
        self.item_row = create(self.out / "rows" / "item.npy", np.int32, (self.length,))
        last = np.full(len(self.item_keys) + 1, self.length, dtype=np.int64)
        later = [seen]
        for rows, block in self.rows.blocks("item"):
            self.item_row[rows] = rows_of(block.astype(np.int64), self.item_keys)
            later.append(np.unique(block[self.item_row[rows] == len(self.item_keys)]))
            inside = min(rows.stop, self.train.stop)
            if rows.start < inside:
                last[self.item_row[rows.start : inside]] = np.arange(rows.start, inside)
        if self.config.catalogue:
            covered = coverage(catalogue, sorted_set(np.sort(np.concatenate(later))))
            covered.check(self.found.log)
            self.found.counts.missing_items = len(covered.lacking)
        for field in self.own:
            self.item_raw[field.name] = self.rows.at(f"f.{field.name}", last, field.kind == "bag")
        self._varying(last < self.length)

    def _varying(self, known: Mask) -> None:
        """Count what of the log is not as its item's fields have it; `known` items [N] have theirs from the log."""
        for field in self.own:
            name, kind = f"f.{field.name}", self.layout.types[field.name]
            blocks = self.rows.bags(name) if field.kind == "bag" else self.rows.blocks(name)
            text = self.text[field.name] if key_kind_of(kind) == "string" else None
            names = Names(self.item_keys, self.ids, text)
            found = varying(blocks, self.item_row, self.item_raw[field.name], known, names)
            if found is not None:
                self.found.counts.varying[field.name] = found
        self.text.clear()
        self.ids = None

    # Vocabularies, from training rows only.

    def _vocabularies(self) -> None:
        kinds, keys = self.layout.types, self.rows.keys
        self._vocabulary(ITEM, self.item_seen, self.item_counts, kinds[ITEM])
        users, user_counts = distinct(keys("user", self.train, bag=False))
        self._vocabulary(USER, users, user_counts, kinds[USER])
        if len(self.keys[ITEM]) == 0:
            raise EmptyVocabulary(too_rare("items", self.item_counts, self.config.min_count))
        if len(self.keys[USER]) == 0:
            self.progress.note(f"{too_rare('users', user_counts, self.config.min_count)}: the model will know no user")
        self.fields += [Field(USER, "id", "request", USER), Field(ITEM, "id", "item", ITEM)]
        own = [f for f in self.config.fields if f.kind in ("categorical", "bag") and f.vocabulary in (None, f.name)]
        for field in own:
            known, counts = distinct(self._training_keys(field))
            self._vocabulary(field.name, known, counts, kinds[field.name], floor=field.side != "item")
        for field in self.config.fields:
            self.fields.append(self._field(field))

    def _training_keys(self, field: FieldConfig) -> Iterator[Ints]:
        if field.side != "item":
            return self.rows.keys(f"f.{field.name}", self.train, field.kind == "bag")
        raw = self.item_raw[field.name]
        return iter([(raw.values if isinstance(raw, RawBag) else raw).astype(np.int64, copy=False)])

    def _vocabulary(self, name: str, known: Ints, counts: Ints, kind: pa.DataType, floor: bool = True) -> None:
        self.keys[name] = frequent(known, counts, self.config.min_count if floor else 1)
        self.schema_kinds[name] = key_kind_of(kind)

    def _field(self, field: FieldConfig) -> Field:
        if field.kind != "dense":
            return field_of(field)
        if field.side == "item":
            raw = self.item_raw[field.name]
            assert not isinstance(raw, RawBag)
            mean, std = moments(iter([raw]))
        else:
            mean, std = moments(block for _, block in self.rows.blocks(f"f.{field.name}", self.train))
        return field_of(field, mean, std if std >= LEAST_STD else 1.0)

    # The data set's own columns.

    def _rows(self) -> None:
        writer = FieldWriter(self.out, self.rows, self.keys, self.item_keys, self.length, self.train.stop)
        self._column("row_id")
        self.columns.append("row_id")
        for name in ("user", "request"):
            known = distinct_keys(self.rows.keys(name, range(self.length), bag=False))
            writer.codes(name, name, known, np.int64)
            self.columns.append(name)
        stored = {f"f.{f.name}" for f in self.config.fields}
        for name in [c for c in self.raw.files if c.startswith("f.") and c.removesuffix(ends_of("")) not in stored]:
            self._column(name, name.removeprefix("f."))
            self.columns.append(name.removeprefix("f."))
        shown = np.zeros(len(self.item_keys) + 1)
        shown[rows_of(self.item_seen, self.item_keys)] = self.item_counts
        writer.save("traffic/item", shown)
        for field in self.fields:
            if field.side == "item":
                raw = np.append(self.item_keys, NULL_KEY) if field.name == ITEM else self.item_raw[field.name]
                writer.item_field(field, raw, shown)
            else:
                writer.row_field(field, "user" if field.name == USER else f"f.{field.name}")
        for name, keys in {**self.keys, "item": self.item_keys}.items():
            writer.save(f"keys/{name}", keys)

    def _requests(self) -> None:
        counts = self.found.counts
        counts.requests, counts.disagreeing = disagreeing(self.out / "rows", request_columns(self.fields))

    def _finish(self) -> None:
        vocabularies = {n: Vocabulary(n, len(k) + 1, self.schema_kinds[n]) for n, k in self.keys.items()}
        schema = Schema(tuple(self.fields), vocabularies)
        meta = {
            "schema": schema.to_json(),
            "splits": {name: [r.start, r.stop] for name, r in self.bounds.items()},
            "counts": self.found.counts.to_json(),
            "length": self.length,
            "columns": self.columns,
        }
        shutil.rmtree(self.out / "raw")
        (self.out / "meta.json").write_text(json.dumps(meta))
