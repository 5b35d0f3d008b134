"""`--dry-run`: what a recipe would do, from files' footers, and from times, labels and ids of the rows."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys_kd.data.bounds import Bound, bounds
from recsys_kd.data.counts import UNCHECKED_CATALOGUE, Counts, excluded_told
from recsys_kd.data.doubles import doubles_told
from recsys_kd.data.evidence import Evidence, Found, of_log, parts_of
from recsys_kd.data.files import BadFile, indispensable
from recsys_kd.data.footer import BadFooter
from recsys_kd.data.items import read_catalogue
from recsys_kd.data.layout import column_of
from recsys_kd.data.log import Log, open_log
from recsys_kd.data.outline import Outline, schema_of
from recsys_kd.data.split import empty_split
from recsys_kd.data.vocabulary import EmptyVocabulary
from recsys_kd.flow.checks import check, unreachable
from recsys_kd.flow.decidable import check_decidable, soft_labels
from recsys_kd.flow.estimate import memory_bytes, seconds
from recsys_kd.progress import SILENT, Progress
from recsys_kd.schema import ITEM, USER
from recsys_kd.settings import FieldConfig, Recipe

_DAY_MS = 86_400_000
_FAR_MS = 253_402_300_800_000
"""Year 9999: no time of a log, but of a wrong unit or a bad row."""
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_UNSEEN = (
    "counted from users, items, times, labels, requests and weights alone: only a run finds rows that repeat "
    "another, and bad values or damaged pages of other columns"
)


@dataclass(frozen=True)
class Plan:
    """What is known before a log is encoded: sizes of tables are upper bounds; memory and seconds are estimates.

    Rows of splits are counted before duplicates, and before bad values of other columns, are known.
    """

    files: int
    rows: int
    empty_files: int
    excluded_files: list[str]
    files_without_checksums: int
    fields: list[dict[str, Any]]
    tables: dict[str, dict[str, int]]
    """Per vocabulary `rows_at_most`, the fallback row included, and `teacher_bytes_at_most` (0: not ours to train)."""
    splits: dict[str, Evidence]
    memory_bytes: int
    seconds: int
    seconds_by_stage: dict[str, int]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return asdict(self) | {"splits": {name: found.to_json() for name, found in self.splits.items()}}

    def lines(self) -> list[str]:
        """Return the plan as text."""
        out = [
            f"{self.rows:,} rows in {self.files} file(s), {self.empty_files} more without rows, "
            f"{len(self.excluded_files)} excluded, {self.files_without_checksums} without page checksums"
        ]
        out += [excluded_told(self.excluded_files)] if self.excluded_files else []
        out += [
            f"field {f['name']}: {f['kind']}, {f['side']} side, column {f['column']}"
            + (f", rows of table {f['table']}" if f["table"] else "")
            for f in self.fields
        ]
        for name, t in self.tables.items():
            rows, size = t["rows_at_most"], t["teacher_bytes_at_most"]
            out.append(f"table {name}: at most {rows:,} rows, at most {size:,} bytes in the teacher")
        out += [_UNSEEN, *(f"{name}: {found.line()}" for name, found in self.splits.items())]
        stages = ", ".join(f"{name} {_spoken(found)}" for name, found in self.seconds_by_stage.items())
        memory = f"{self.memory_bytes / 1e9:.1f} GB of memory"
        out.append(f"estimate: {memory}, {_spoken(self.seconds)} on 2 cores ({stages})")
        return [*out, *(f"warning: {warning}" for warning in self.warnings)]


def _spoken(found: int) -> str:
    return f"{found} s" if found < 120 else f"{found / 60:.{1 if found < 1800 else 0}f} min"


def plan(recipe: Recipe, progress: Progress = SILENT) -> Plan:
    """Check folders, teacher, columns, types, files, splits, labels and budget, and estimate.

    Raises what these checks raise.
    """
    check(recipe)
    extra = {"teacher": recipe.teacher.column} if recipe.teacher.column else None
    log = open_log(recipe.data, recipe.split, extra)
    found = _bounds(log.files, recipe.data.path, log.layout.read)
    most, least = _rows(recipe, log, found)
    if most[ITEM] == 0:
        raise EmptyVocabulary(f"data.min_count: {recipe.data.min_count:,}: no item can occur that often in this log")
    width = recipe.teacher.width if recipe.teacher.kind == "dcnv2" else 0
    tables = {
        name: {"rows_at_most": rows + 1, "teacher_bytes_at_most": 4 * width * (rows + 1)} for name, rows in most.items()
    }
    passed = _splits(recipe, log, found[log.layout.columns["timestamp"]], progress)
    splits = passed.splits
    rows, soft = (sum(part) for part in zip(*((p.rows, p.soft) for p in splits.values()), strict=True))
    excluded = [*log.counts.excluded_files, *passed.counts.excluded_files]
    warnings = [
        *_unchecked(log.counts),
        *_unused(passed.counts),
        *doubles_told(log),
        *soft_labels(soft, rows),
        *passed.notes,
    ]
    warnings += check_decidable(recipe, splits)
    warnings += [*_check_budget(recipe, log, most, least), *unreachable(recipe)]
    stages = seconds(recipe, log.rows, splits["train"].rows / sum(part.rows for part in splits.values()))
    return Plan(
        len(log.files),
        log.rows,
        log.counts.empty_files,
        excluded,
        log.counts.files_without_checksums,
        _fields(recipe),
        tables,
        splits,
        memory_bytes(log.rows, sum(t["teacher_bytes_at_most"] for t in tables.values())),
        round(sum(stages.values())),
        {name: round(each) for name, each in stages.items()},
        warnings,
    )


def _check_budget(recipe: Recipe, log: Log, most: dict[str, int], least: dict[str, int]) -> list[str]:
    """Return a warning where a budget is met only if tables are near their bounds. Raises: BudgetTooSmall."""
    if recipe.compress.bytes is None and recipe.compress.ratio is None:
        return []
    from recsys_kd.flow.budget import check_budget, doubt  # torch: a budget is a matter of the models
    from recsys_kd.flow.models import teacher_bytes

    fields = recipe.data.fields
    outline = Outline(fields, log.layout)
    high, low = (
        teacher_bytes(recipe, schema_of(fields, log.layout, {name: n + 1 for name, n in rows.items()}))
        for rows in (most, least)
    )
    check_budget(recipe, outline, high, foretold=True)  # an outline has no ids to count rows of
    return doubt(recipe, outline, low, high)


def _splits(recipe: Recipe, log: Log, stamps: Bound, progress: Progress) -> Found:
    """Return what each split holds, and which rows none will.

    Raises: EmptySplit, TooManyBadRows; of the catalogue what `data.items.read_catalogue` raises, and ForeignCatalogue.
    """
    last = _last_ms(recipe, log.layout.types["timestamp"], stamps)
    catalogue = read_catalogue(recipe.data, log.layout.item_fields) if recipe.data.catalogue else None
    found = of_log(log, recipe.split, last, progress, catalogue)
    for name, part in found.splits.items():
        if part.rows == 0:
            raise empty_split(name, parts_of(found.splits), recipe.split)
    return found


def _unchecked(counts: Counts) -> list[str]:
    return [f"{UNCHECKED_CATALOGUE}; write it with page checksums"] if counts.unchecked_catalogue else []


def _unused(counts: Counts) -> list[str]:
    """Return what there is to say of rows that no split will hold."""
    if not counts.bad:
        return []
    reasons = ", ".join(f"{name} {rows:,}" for name, rows in counts.quarantined.most_common())
    return [
        f"{counts.bad:,} of {counts.read:,} rows will not be used ({reasons}), which data.max_quarantine allows; "
        f"worst: {counts.worst_told()}"
    ]


def _fields(recipe: Recipe) -> list[dict[str, Any]]:
    names = recipe.data.columns
    return [
        {"name": USER, "kind": "id", "side": "request", "column": names.user_id, "table": USER},
        {"name": ITEM, "kind": "id", "side": "item", "column": names.item_id, "table": ITEM},
        *(
            {"name": f.name, "kind": f.kind, "side": f.side, "column": column_of(f), "table": _table_of(f)}
            for f in recipe.data.fields
        ),
    ]


def _table_of(field: FieldConfig) -> str | None:
    return (field.vocabulary or field.name) if field.kind in ("categorical", "bag") else None


def _bounds(files: Iterable[Path], root: Path, columns: Iterable[str]) -> dict[str, Bound]:
    try:
        return bounds(files, root, columns)
    except BadFooter as error:
        raise BadFile(root, f"a footer {error}") from None


def _rows(recipe: Recipe, log: Log, found: dict[str, Bound]) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many ids can have a row of their own, per vocabulary, and about how many have one for sure.

    The first counts an item-side field's in any number; the second is what the largest row group has, where it says so.
    """
    data, rare = recipe.data, recipe.data.min_count
    items = found[data.columns.item_id].distinct()
    most, least = {}, {}
    owned = [column_of(f) for f in log.layout.item_fields]
    with indispensable():
        listed = _bounds([data.catalogue], data.catalogue.parent, owned) if data.catalogue else {}

    def add(name: str, bound: Bound, count: int, limit: int | None = None) -> None:
        most[name] = min(bound.distinct(count), bound.distinct(count) if limit is None else limit)
        least[name] = min(bound.largest or most[name], most[name])

    add(USER, found[data.columns.user_id], rare)
    add(ITEM, found[data.columns.item_id], rare)
    for field in data.fields:
        if _table_of(field) == field.name:
            if field in log.layout.item_fields:
                add(field.name, listed[column_of(field)], 1)
            elif field.side == "item":
                add(field.name, found[column_of(field)], 1, items if field.kind == "categorical" else None)
            else:
                add(field.name, found[column_of(field)], rare)
    return most, least


def _last_ms(recipe: Recipe, kind: pa.DataType, stamps: Bound) -> int | None:
    """Return a log's last moment, ms UTC, as its footers say it, None where they don't; `kind` of timestamps."""
    if stamps.integers is None or not stamps.ranged:
        return None
    unit = kind.unit if pa.types.is_timestamp(kind) else recipe.data.timestamp_unit
    last = stamps.integers[1] * _DAY_MS // (1 if pa.types.is_date32(kind) else _PER_DAY[unit])
    return last if abs(last) < _FAR_MS else None
