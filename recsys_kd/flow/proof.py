"""One request of the log, as raw values, scored through a registered artifact: it serves what is logged."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys_kd.data.files import list_files, open_parquet, partition_values, read_batches
from recsys_kd.data.layout import column_of
from recsys_kd.errors import InputError
from recsys_kd.runtime.ranker import BadRequest, Ranker
from recsys_kd.schema import ITEM, USER
from recsys_kd.settings import Recipe

_CANDIDATES, _TRIES = 5, 1000


class NothingScored(InputError):
    """No request of the log can be scored through the artifact."""


def score_one(path: Path, recipe: Recipe) -> dict[str, Any]:
    """Return a request of the newest file scored through the artifact at `path`, by what the log calls its ids.

    Requests that hold bad rows (null ids, missing numbers) are passed over. Raises: ArtifactRefused, NothingScored.
    """
    ranker, why = Ranker.open(path), "its newest files hold no rows"
    for rows in islice(_requests(recipe), _TRIES):
        try:
            return _scored(ranker, recipe, rows)
        except BadRequest as error:
            why = str(error)
    raise NothingScored(f"{path}: no request of {recipe.data.path} can be scored through it: {why}")


def _scored(ranker: Ranker, recipe: Recipe, rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    column = {f.name: column_of(f) for f in recipe.data.fields}
    column |= {USER: recipe.data.columns.user_id, ITEM: recipe.data.columns.item_id}
    request = {f.name: rows[0][column[f.name]] for f in ranker.schema.of(side="request")}
    items = [row[column[ITEM]] for row in rows]
    if request[USER] is None or None in items:
        raise BadRequest("a row has no user or no item")
    features = {f.name: [row[column[f.name]] for row in rows] for f in ranker.schema.of(side="candidate")}
    found = ranker.score(request, items, features)
    return {"user": request[USER], "candidates": items, "probability": [round(float(p), 6) for p in found]}


def _requests(recipe: Recipe) -> Iterator[list[Mapping[str, Any]]]:
    """Yield up to 5 rows of each request in the first batch of every file that has rows, the newest first."""
    names = recipe.data.columns
    key = (names.request_id,) if names.request_id else (names.user_id, names.timestamp)
    for path in reversed(list_files(recipe.data.path)):
        batch = _first_batch(recipe, path)
        if batch is None:
            continue
        requests: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in _rows(batch):
            rows = requests.setdefault(tuple(str(row[k]) for k in key), [])
            if len(rows) < _CANDIDATES:
                rows.append(row)
        yield from requests.values()


def _first_batch(recipe: Recipe, path: Path) -> pa.RecordBatch | None:
    """Return a file's first rows with the columns that its folders name; None where it is empty."""
    file = open_parquet(path)
    names = recipe.data.columns
    wanted = {names.user_id, names.item_id, names.request_id or names.timestamp}
    wanted |= {column_of(f) for f in recipe.data.fields if f.side != "item"}
    named = partition_values(path, recipe.data.path)
    inside = [name for name in file.schema_arrow.names if name in wanted]
    batch = next((b for b in read_batches(file, path, inside) if b.num_rows), None)
    if batch is None:
        return None
    for name in wanted.difference(inside):
        batch = batch.append_column(name, pa.repeat(pa.scalar(named[name], pa.string()), batch.num_rows))
    return batch.slice(0, _TRIES)


def _rows(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any]]:
    """Yield rows as Python values; one whose text is not UTF-8 is left out, as it was from training."""
    for i in range(batch.num_rows):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except UnicodeDecodeError:
            continue
