"""Files of a log that are there twice, byte for byte: only those of equal size and footer are read."""

import filecmp
import hashlib
from pathlib import Path

from recsys_kd.data.files import content_tail, open_parquet, partition_values
from recsys_kd.data.log import Log

_EVENT = ("user_id", "item_id", "timestamp", "request_id")


def doubled(log: Log) -> dict[Path, Path]:
    """Return the files that are the same as an earlier one, each with that one."""
    event = {log.layout.columns[name] for name in _EVENT if name in log.layout.columns}
    alike: dict[tuple[int, bytes], list[Path]] = {}
    found = {}
    for path in log.files:
        if event & set(partition_values(path, log.config.path)):
            continue  # its folder says more of its events than its bytes do
        size, tail = content_tail(path)
        firsts = alike.setdefault((size, hashlib.sha256(tail).digest()), [])
        same = next((first for first in firsts if filecmp.cmp(first, path, shallow=False)), None)
        if same is None:
            firsts.append(path)
        else:
            found[path] = same
    return found


def doubles_told(log: Log) -> list[str]:
    """Return what there is to say of files that are there twice, nothing where none is."""
    found = doubled(log)
    if not found:
        return []
    rows = sum(open_parquet(path).metadata.num_rows for path in found)
    path, first = next(iter(found.items()))
    limit = log.config.max_duplicates
    end = (
        f"a run stops at data.max_duplicates {limit:.0%} of all {log.rows:,}: remove them"
        if rows >= limit * log.rows
        else "a run leaves them out"
    )
    return [
        f"{len(found):,} file(s) are the same as another byte for byte, such as {path} as {first}: their {rows:,} rows "
        f"are duplicates, and {end}"
    ]
