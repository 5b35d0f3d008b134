"""`--dry-run`: what a recipe would do, from files' footers alone."""

from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from recsys_kd.data.read import open_log
from recsys_kd.flow.compression import budget_of
from recsys_kd.flow.folders import check_folders
from recsys_kd.flow.models import check_teacher
from recsys_kd.settings import Recipe

_TEACHER_ROWS_PER_SECOND, _STUDENT_ROWS_PER_SECOND, _READ_ROWS_PER_SECOND = 40_000, 150_000, 400_000
"""Measured on 2 cores; the teacher at width 64."""
_EPOCHS = 4
"""Epochs that early stopping usually leaves."""


@dataclass(frozen=True)
class Plan:
    """What is known before a row is read; seconds and bytes are estimates."""

    files: int
    rows: int
    files_without_checksums: int
    fields: list[dict[str, Any]]
    tables: dict[str, dict[str, int]]
    memory_bytes: int
    seconds: int

    def lines(self) -> list[str]:
        """Return the plan as text."""
        out = [f"{self.rows:,} rows in {self.files} file(s), {self.files_without_checksums} without page checksums"]
        out += [f"field {f['name']}: {f['kind']}, {f['side']} side, column {f['column']}" for f in self.fields]
        for name, t in self.tables.items():
            out.append(f"table {name}: at most {t['rows']:,} rows, teacher {t['teacher_bytes']:,} bytes")
        out.append(f"about {self.memory_bytes / 1e9:.1f} GB of memory, {self.seconds / 60:.0f} minutes on 2 cores")
        return out


def plan(recipe: Recipe) -> Plan:
    """Check folders, teacher, budget, columns, types and files, and estimate. Raises what these checks raise."""
    check_folders(recipe)
    check_teacher(recipe)
    budget_of(recipe.compress, 0)
    extra = {"teacher": recipe.teacher.column} if recipe.teacher.column else None
    log = open_log(recipe.data, recipe.split, extra)
    columns = {**{"user_id": recipe.data.columns.user_id, "item_id": recipe.data.columns.item_id}}
    fields = [
        {"name": "user_id", "kind": "id", "side": "request", "column": columns["user_id"]},
        {"name": "item_id", "kind": "id", "side": "item", "column": columns["item_id"]},
        *({"name": f.name, "kind": f.kind, "side": f.side, "column": f.column or f.name} for f in recipe.data.fields),
    ]
    catalogue = recipe.data.catalogue
    items = pq.ParquetFile(catalogue).metadata.num_rows if catalogue else _distinct_bound(log.rows)
    tables = {"item_id": _table(items, recipe), "user_id": _table(_distinct_bound(log.rows), recipe)}
    epochs = min(_EPOCHS, recipe.teacher.epochs)
    teacher = passes(recipe) * epochs * log.rows / _TEACHER_ROWS_PER_SECOND
    students = 2 * min(2 * _EPOCHS, recipe.student.epochs) * log.rows / _STUDENT_ROWS_PER_SECOND
    seconds = log.rows / _READ_ROWS_PER_SECOND + teacher + students
    memory = 1_500_000_000 + 72 * log.rows + sum(2 * t["teacher_bytes"] for t in tables.values())
    return Plan(
        len(log.files), log.rows, log.counts.files_without_checksums, fields, tables, int(memory), round(seconds)
    )


def passes(recipe: Recipe) -> float:
    """Return how many times the training rows are gone through per epoch by all teachers together."""
    blocks = recipe.soft_labels.blocks
    if recipe.teacher.kind == "precomputed":
        return 0.0
    # The whole teacher, and those of the soft labels: blocks teachers of (blocks - 1) / blocks of the rows each, or
    # one of 1 / blocks, one of 2 / blocks, .. of them.
    parts = {"cross_fitted": blocks - 1.0, "out_of_time": (blocks - 1) / 2, "in_sample": 1.0}
    return 1.0 + recipe.soft_labels.members * parts[recipe.soft_labels.protocol]


def _distinct_bound(rows: int) -> int:
    """Return an upper guess of distinct users or items: at least ten rows each."""
    return max(1, rows // 10)


def _table(rows: int, recipe: Recipe) -> dict[str, int]:
    return {"rows": rows, "teacher_bytes": rows * recipe.teacher.width * 4}
