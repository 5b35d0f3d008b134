"""A request is one user's list: where the log says otherwise, its own ids are told."""

import numpy as np

from recsys_kd.data.files import list_files, open_parquet, read_batches
from recsys_kd.evaluate.inspect import MixedRequest
from recsys_kd.flow.ab_log import ScoredLog
from recsys_kd.settings import DataConfig


def check_owners(log: ScoredLog, config: DataConfig) -> None:
    """Raise MixedRequest, with an example by the log's own ids, where a request has rows of several users."""
    mixed = (log.request[1:] == log.request[:-1]) & (log.user[1:] != log.user[:-1])
    if mixed.any():
        count = len(np.unique(log.request[1:][mixed]))
        raise MixedRequest(
            f"{config.columns.request_id}: {count:,} requests have rows of several users{_example(config)}; a "
            "request is one user's list, make its id unique"
        )


def _example(config: DataConfig) -> str:
    """Return the first such request as the log has it, "" where its ids are not columns of the files."""
    columns = [str(config.columns.request_id), config.columns.user_id]
    owner: dict[object, object] = {}
    for path in list_files(config.path):
        file = open_parquet(path)
        if not set(columns) <= set(file.schema_arrow.names):
            return ""
        for batch in read_batches(file, path, columns):
            for request, user in zip(*(batch.column(c).to_pylist() for c in columns), strict=True):
                if owner.setdefault(request, user) != user:
                    return f", such as request {request!r} of users {owner[request]!r} and {user!r}"
    return ""
