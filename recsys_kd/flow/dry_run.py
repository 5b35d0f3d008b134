"""`--dry-run`: what a recipe would do, from files' footers alone."""

from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from recsys_kd.data.read import open_log
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
    """Check columns, types and files, and estimate. Raises what `open_log` raises."""
    extra = {"teacher": recipe.teacher.column} if recipe.teacher.column else None
    log = open_log(recipe.data, recipe.split, extra)
    columns = {**{"user_id": recipe.data.columns.user_id, "item_id": recipe.data.columns.item_id}}
    fields = [
        {"name": "user_id", "kind": "id", "side": "request", "column": columns["user_id"]},
        {"name": "item_id", "kind": "id", "side": "item", "column": columns["item_id"]},
        *({"name": f.name, "kind": f.kind, "side": f.side, "column": f.column or f.name} for f in recipe.data.fields),
    ]
    tables = {}
    if recipe.data.catalogue:
        items = pq.ParquetFile(recipe.data.catalogue).metadata.num_rows
        tables["item_id"] = _table(items, recipe)
    tables["user_id"] = _table(_distinct_bound(log.rows), recipe)
    epochs = min(_EPOCHS, recipe.teacher.epochs)
    teacher = 0 if recipe.teacher.kind == "precomputed" else 2 * epochs * log.rows / _TEACHER_ROWS_PER_SECOND
    students = 2 * min(2 * _EPOCHS, recipe.student.epochs) * log.rows / _STUDENT_ROWS_PER_SECOND
    seconds = log.rows / _READ_ROWS_PER_SECOND + teacher + students
    memory = 1_500_000_000 + 72 * log.rows + sum(2 * t["teacher_bytes"] for t in tables.values())
    return Plan(
        len(log.files), log.rows, log.counts.files_without_checksums, fields, tables, int(memory), round(seconds)
    )


def _distinct_bound(rows: int) -> int:
    """Return an upper guess of distinct users: at least ten rows each."""
    return max(1, rows // 10)


def _table(rows: int, recipe: Recipe) -> dict[str, int]:
    return {
        "rows": rows,
        "teacher_bytes": rows * recipe.teacher.width * 4,
        "student_bytes": rows * (recipe.student.width + 5),
    }
