"""Tables of users and items joined by an import: a key that is missing, repeated or of another kind is refused."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_kd.data.interactions_config import BadImport, SideTable
from recsys_kd.data.interactions_events import as_ids
from recsys_kd.data.interactions_read import need, read_table


class Joined:
    """One side table, checked against the ids that it will be joined to."""

    def __init__(self, side: SideTable, ids: pd.Index, what: str) -> None:
        """Read `side` for `ids`; `what` (users, items) is how messages call them. Raises: BadImport."""
        self.where = str(side.path)
        frame = read_table(side.path, (side.key,))
        self.keys = self._checked(need(frame, side.key, f"{what}.key", self.where), side.key)
        check_kind(self.keys, ids, f"{self.where}: column '{side.key}'")
        taken = {name: need(frame, name, f"{what}.columns", self.where) for name in side.columns}
        self.columns = {name: pa.array(column) for name, column in taken.items()}
        self.at = self.keys.get_indexer(ids)
        self.unmatched = int((self.at < 0).sum())
        """Ids that the table has no row for."""
        if self.unmatched == len(ids):
            raise BadImport(f"{self.where}: none of the {len(ids):,} {what} is in column '{side.key}'; check `key`")

    def _checked(self, values: pd.Series, key: str) -> pd.Index:
        missing = int(values.isna().sum())
        if missing:
            raise BadImport(f"{self.where}: {missing} rows have no '{key}'; remove them")
        keys: pd.Index = pd.Index(as_ids(values, f"{self.where}: key '{key}'"))
        if not keys.is_unique:
            again = keys[keys.duplicated()][0]
            raise BadImport(f"{self.where}: {again!r} is in more than one row of column '{key}'; keep one")
        return keys

    def by_code(self) -> dict[str, pa.Array]:
        """Return every column in the ids' order, null where the table has no row."""
        at = pa.array(self.at, mask=self.at < 0)
        return {name: column.take(at) for name, column in self.columns.items()}

    def write(self, path: Path) -> None:
        """Write the table keyed by `item_id`: a catalogue."""
        table = pa.table({"item_id": pa.array(self.keys.to_numpy()), **self.columns})
        pq.write_table(table, path, write_page_checksum=True)


def check_kind(keys: pd.Index, ids: pd.Index, where: str) -> None:
    """Raise BadImport where one side's ids are text and the other's are numbers, since then nothing would be found."""
    kinds = ["whole numbers" if pd.api.types.is_integer_dtype(side.dtype) else "text" for side in (keys, ids)]
    if kinds[0] != kinds[1]:
        raise BadImport(f"{where} holds {kinds[0]}, the source's column holds {kinds[1]}; write both alike")
