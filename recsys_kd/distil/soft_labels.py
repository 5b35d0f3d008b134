"""The teacher's logits for training rows: made once, stored as Parquet, shared by every student and every round.

out of time: rows are cut into blocks by time, between two days where there are enough and else between two moments, and
a block is scored by a teacher of the blocks before it, so the first block has no soft labels. cross-fitted: requests
are dealt into folds, each scored by a teacher of the others; a request's rows stay together, since its clicks tell of
each other. in-sample: the teacher scores rows it has learned by heart; only on request.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_kd.errors import InputError
from recsys_kd.settings import SoftLabelConfig

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
FitAndScore = Callable[[Rows, Rows, str], tuple[Floats, str]]
"""(training rows, rows to score, what it is) -> (logits, digest of the teacher that gave them)."""


class SoftLabelsStale(InputError):
    """Stored soft labels belong to other rows, another teacher or another schema."""


class TooFewToSplit(InputError):
    """Fewer requests, or moments, than parts to cut them into."""


_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Part:
    """Rows to train a teacher on and rows for it to score."""

    train: Rows
    score: Rows
    name: str


def parts(config: SoftLabelConfig, rows: range, seed: int, times: Rows, requests: Rows) -> Iterator[Part]:
    """Yield what to train and score under a protocol; `rows` are the training rows in time order.

    times: ms UTC of these rows, rising. requests: the request of each, any int64. Raises: TooFewToSplit.
    """
    everything = np.arange(rows.start, rows.stop)
    if config.protocol == "in_sample":
        yield Part(everything, everything, "in-sample")
    elif config.protocol == "out_of_time":
        blocks = np.split(everything, time_cuts(times, config.blocks))
        for i in range(1, len(blocks)):
            yield Part(np.concatenate(blocks[:i]), blocks[i], f"block {i + 1} of {config.blocks}")
    else:
        fold = fold_of(requests, config.blocks, seed)
        for i in range(config.blocks):
            yield Part(everything[fold != i], everything[fold == i], f"fold {i + 1} of {config.blocks}")


def time_cuts(times: Rows, blocks: int) -> Rows:
    """Return where to cut rows of rising times [N] into blocks of about equal size, [blocks - 1].

    Cuts lie between two days if there are days enough, else between two different times: a request is never cut.
    Raises: TooFewToSplit.
    """
    for moments in (times // _DAY_MS, times):
        edges = np.flatnonzero(np.diff(moments)) + 1
        if len(edges) >= blocks - 1:
            return _spread_out(edges, len(times), blocks)
    raise TooFewToSplit(
        f"soft_labels.blocks: {blocks} blocks of training rows that have {len(edges) + 1} different time(s); "
        "give fewer blocks or a longer log"
    )


def _spread_out(edges: Rows, rows: int, blocks: int) -> Rows:
    """Return the edges nearest to equal shares of the rows, each used once."""
    cuts: list[int] = []
    for i in range(1, blocks):
        first = int(np.searchsorted(edges, cuts[-1], "right")) if cuts else 0
        open_ = edges[first : len(edges) - (blocks - 1 - i)]
        cuts.append(int(open_[np.abs(open_ - rows * i / blocks).argmin()]))
    return np.array(cuts, dtype=np.int64)


def fold_of(requests: Rows, folds: int, seed: int) -> Rows:
    """Return each row's fold [N]: folds of about equal numbers of requests. Raises: TooFewToSplit."""
    known, code = np.unique(requests, return_inverse=True)
    if len(known) < folds:
        raise TooFewToSplit(f"soft_labels.blocks: {folds} folds of {len(known)} request(s); give fewer blocks")
    dealt: Rows = np.random.default_rng(seed).permutation(np.arange(len(known)) % folds)[code]
    return dealt


def make_soft_labels(
    config: SoftLabelConfig, rows: range, seed: int, times: Rows, requests: Rows, fit_and_score: FitAndScore
) -> tuple[Floats, list[str]]:
    """Return logits [len(rows)], NaN where no teacher may score, and the digests of the teachers used."""
    logits = np.full(len(rows), np.nan, dtype=np.float32)
    digests = []
    for part in parts(config, rows, seed, times, requests):
        scored, digest = fit_and_score(part.train, part.score, part.name)
        logits[part.score - rows.start] = scored
        digests.append(digest)
    return logits, digests


def save_soft_labels(path: Path, row_id: Rows, logits: Floats, digests: list[str], fingerprint: str) -> None:
    """Write (row_id, logit), null where there is none, with the teachers' digests and the schema's fingerprint."""
    table = pa.table({"row_id": row_id, "logit": pa.array(logits, from_pandas=True)})
    table = table.replace_schema_metadata({"teachers": ",".join(digests), "fingerprint": fingerprint})
    pq.write_table(table, path, write_page_checksum=True)


def load_soft_labels(path: Path, row_id: Rows, fingerprint: str) -> Floats:
    """Return the logits of exactly these rows, NaN where there is none. Raises: SoftLabelsStale."""
    table = pq.read_table(path, page_checksum_verification=True)
    metadata = table.schema.metadata or {}
    if metadata.get(b"fingerprint", b"").decode() != fingerprint:
        raise SoftLabelsStale(f"{path}: made for another schema; delete the folder and run again")
    if not np.array_equal(table["row_id"].to_numpy(), row_id):
        raise SoftLabelsStale(f"{path}: made for other rows; delete the folder and run again")
    return np.asarray(table["logit"].to_numpy(), dtype=np.float32)
