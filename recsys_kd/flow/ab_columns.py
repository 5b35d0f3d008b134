"""How a log's columns are known where no recipe says: canonical names, and the unit of integer times by their size."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_kd.data.convert import TextKeys, keys_of, sound_text
from recsys_kd.data.files import first_with_rows, open_parquet, partition_values
from recsys_kd.data.items import NULL_KEY, categories_of
from recsys_kd.data.layout import OPTIONAL
from recsys_kd.settings import Columns, DataConfig, Recipe

_UNITS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"))


def names_in(path: Path) -> list[str]:
    """Return the columns of a log's first file with rows, and its folders. Raises: NoParquet, BadFile."""
    first = first_with_rows(path)
    return [*open_parquet(first).schema_arrow.names, *partition_values(first, path)]


def data_config(path: Path, recipe: Recipe | None) -> DataConfig:
    """Return how to read a log: as the recipe says, else by canonical names."""
    if recipe is not None:
        return recipe.data.model_copy(update={"path": path})
    present = names_in(path)
    columns = Columns(**{name: name for name in OPTIONAL if name in present})
    unit = _unit(path, columns.timestamp) if columns.timestamp in present else "s"
    return DataConfig(path=path, columns=columns, timestamp_unit=unit)


def _unit(path: Path, column: str) -> str:
    """Return the unit of an integer time column by the size of its first value: seconds stay below 1e11 until 5138."""
    file = open_parquet(first_with_rows(path))
    if column not in file.schema_arrow.names or not pa.types.is_integer(file.schema_arrow.field(column).type):
        return "s"
    first = next(file.iter_batches(batch_size=1, columns=[column]), None)
    value = abs(first.column(0)[0].as_py() or 0) if first is not None and first.num_rows else 0
    return next((unit for least, unit in _UNITS if value >= least), "s")


class Names:
    """Keys of a category column, remembering what each is called."""

    def __init__(self) -> None:
        self.text = TextKeys()
        self.called: dict[int, str] = {int(NULL_KEY): "(none)"}

    def keys(self, array: pa.Array) -> NDArray[np.int64]:
        """Return int64 keys [N]."""
        sound = sound_text(array)[0]
        values = pc.unique(sound)
        for key, value in zip(keys_of(values, self.text).values, values.to_pylist(), strict=True):
            if value is not None:
                self.called.setdefault(int(key), str(value))
        return categories_of(sound, self.text)
