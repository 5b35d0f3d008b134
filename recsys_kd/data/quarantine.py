"""Bad rows with their reasons, in a Parquet file of their own."""

from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_kd.data.drift import widest


class Quarantine:
    """Writes bad rows, with `reason`, `column`, `file` and `row`, to one Parquet file, made when the first one comes.

    Columns keep their type at its widest (files of one log may differ in width); a log column of one of these four
    names is stored as `log_<name>`. A file left by an earlier run is removed at the start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.unlink(missing_ok=True)
        self.writer: pq.ParquetWriter | None = None

    def add(
        self, batch: pa.RecordBatch, reason: NDArray[np.uint16], causes: list[tuple[str, str]], file: Path, start: int
    ) -> None:
        """Store the rows whose reason is not 0; `start` is the batch's first row in its file."""
        bad = np.flatnonzero(reason)
        added = {
            "reason": pa.array([causes[r][0] for r in reason[bad]], pa.string()),
            "column": pa.array([causes[r][1] for r in reason[bad]], pa.string()),
            "file": pa.array([str(file)] * len(bad), pa.string()),
            "row": pa.array(bad + start, pa.int64()),
        }
        picked = batch.take(pa.array(bad))
        columns = {
            f"log_{name}" if name in added else name: column.cast(widest(column.type))
            for name, column in zip(picked.schema.names, picked.columns, strict=True)
        }
        table = pa.table(columns | added)
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = pq.ParquetWriter(self.path, table.schema, write_page_checksum=True)
        self.writer.write_table(table)

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.writer is not None:
            self.writer.close()
