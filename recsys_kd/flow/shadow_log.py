"""Comparisons of champion and challenger as Parquet: `<folder>/day=2026-01-05/<time>-<process>-<number>.parquet`.

Hosts load it where they are told to keep a log: it alone needs pyarrow.
"""

import datetime as dt
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_kd.runtime.shadow import Comparison

SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("ms", "UTC")),
        ("model", pa.string()),
        ("champion", pa.int64()),
        ("challenger", pa.int64()),
        ("candidates", pa.int64()),
        ("mean_difference", pa.float64()),
        ("max_difference", pa.float64()),
        ("top_overlap", pa.float64()),
        ("champion_seconds", pa.float64()),
        ("challenger_seconds", pa.float64()),
        ("error", pa.string()),
    ]
)


class ParquetLog:
    """Writes a file per call, which appears whole or not at all; several processes may share the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, rows: Sequence[Comparison]) -> None:
        """Write comparisons. Raises: OSError where the folder can't be written."""
        now = dt.datetime.now(dt.UTC)
        plain = [asdict(row) | {"at": dt.datetime.fromtimestamp(row.at, dt.UTC)} for row in rows]
        name = f"{now:%H%M%S}-{os.getpid()}-{uuid.uuid4().hex[:8]}.parquet"
        path = self.folder / f"day={now:%Y-%m-%d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_name(f".{name}")
        try:
            pq.write_table(pa.Table.from_pylist(plain, SCHEMA), building, write_page_checksum=True)
            building.replace(path)
        finally:
            building.unlink(missing_ok=True)
