"""A log as a comparison needs it: checked, deduplicated, scored by every model, grouped by request.

Rows stream in batches; what is kept is some 30 bytes a row and 8 for every model, 12 where its scores need float64.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_kd.data.checks import Canonical
from recsys_kd.data.convert import numbers
from recsys_kd.data.counts import TINY_PROPENSITY, same_event
from recsys_kd.data.files import catalogue_files, content_key, list_files
from recsys_kd.data.layout import CHANCE, chance_of, column_of, score_of
from recsys_kd.data.log import open_log
from recsys_kd.data.read import Scan, scan, select, usable
from recsys_kd.errors import InputError, OutsideError
from recsys_kd.evaluate.sample import numbered
from recsys_kd.evaluate.scores import Scores, scores_of
from recsys_kd.flow.ab_columns import Names
from recsys_kd.flow.ab_refs import Ref
from recsys_kd.flow.ab_scores import Declared, kind_of, logits_of
from recsys_kd.flow.keyed import RawScorer, fields_of
from recsys_kd.ids import mix
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import DataConfig, FieldConfig, SplitConfig, utc

Floats = NDArray[np.float32]


class QuarantineUnwritable(OutsideError):
    """The file for bad rows can't be written."""


class NothingLeft(InputError):
    """No row of the log is as late as asked for."""


class OneName(InputError):
    """A column would have to hold two things."""


@dataclass
class ScoredLog:
    """Rows in order of request; arrays [N]. `before` has the keys in rows before `since`, of users and of items."""

    digest: str
    counts: dict[str, Any]
    user: NDArray[np.int32]
    """Place of the user's key in `users`; so for items and requests."""
    request: NDArray[np.int32]
    item: NDArray[np.int32]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    stamp: NDArray[np.int64]
    label: Floats
    weight: Floats
    numbers: dict[str, Floats]
    """position, propensity, price and other columns that were asked for."""
    scores: dict[str, Scores]
    categories: dict[str, NDArray[np.int64]]
    names: dict[str, Names]
    before: dict[str, NDArray[np.int64]]
    notes: list[str] = field(default_factory=list)
    smallest_propensity: float | None = None
    """Of rows that are left out because theirs is too small; None where there are none."""

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Wanted:
    """What to read of a log beside its canonical columns. chances: columns of probabilities, of policies."""

    refs: tuple[Ref, ...]
    numbers: tuple[str, ...] = ()
    chances: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    scores: Declared = "auto"
    since: int | None = None
    """Milliseconds UTC; rows before only say who and what is known."""
    quarantine: Path | None = None
    """File for rows that can't be used; a new one in a temporary folder, which stays, where none is named."""


def log_digest(config: DataConfig) -> str:
    """Return the digest of a log's files and its catalogue. Raises: NoParquet."""
    more = catalogue_files(config.catalogue)
    return content_key([*list_files(config.path), *more], config.path)


def read_scored(config: DataConfig, wanted: Wanted, progress: Progress = SILENT) -> ScoredLog:
    """Read, check and score a log in batches.

    Raises: what `data.read` raises for files, columns and bad rows; what `ab_scores.logits_of` raises; NothingLeft.
    """
    fields = _fields(config, wanted)
    plain = config.model_copy(update={"fields": tuple(fields.values()), "catalogue": None})
    extra = {score_of(r.column): r.column for r in wanted.refs if r.column}
    extra |= {_extra(name): name for name in wanted.numbers} | {chance_of(name): name for name in wanted.chances}
    log = open_log(plain, SplitConfig(), extra)
    with tempfile.TemporaryDirectory(prefix="recsys-kd-ab-") as folder:
        bad = Path(folder) / "quarantine.parquet"
        found = scan(log, bad, Path(folder) / "spill", progress)
        kept = _kept(bad, wanted.quarantine)
        found.check(str(kept))
        found.counts.check_used(str(kept))
        rows = _Rows(found, wanted, fields)
        for batch, canonical in usable(found, progress):
            rows.take(batch, canonical)
    found.counts.check_contradictions(config.max_quarantine, found.event_columns)
    found.counts.check_differences(config.max_quarantine, found.event_columns)
    scored = rows.finish(log_digest(config), found, _left_out(found, kept))
    scored.smallest_propensity = _smallest_propensity(found, kept)
    return scored


def _smallest_propensity(found: Scan, quarantine: Path) -> float | None:
    if not found.counts.quarantined[TINY_PROPENSITY]:
        return None
    column = found.log.layout.columns["propensity"]
    table = pq.read_table(quarantine, columns=[column], filters=[("reason", "=", TINY_PROPENSITY)])
    return float(numbers(table[column].combine_chunks()).values.min())


def _kept(bad: Path, wanted: Path | None) -> Path:
    """Move bad rows, where there are any, to the file wanted; return it. Raises: QuarantineUnwritable."""
    if not bad.exists():
        return wanted or bad
    kept = wanted or Path(tempfile.mkdtemp(prefix="recsys-kd-ab-")) / "quarantine.parquet"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(bad, kept)
    except OSError as error:
        raise QuarantineUnwritable(f"{kept}: {error.strerror}; name another file with --quarantine") from None
    return kept


def _extra(column: str) -> str:
    return f"column:{column}"


def _fields(config: DataConfig, wanted: Wanted) -> dict[str, FieldConfig]:
    """Return every column that the models and slices read. Raises: OneName where two models read it differently."""
    given = {f.name: f for f in config.fields}
    fields: dict[str, FieldConfig] = {}
    for ref in wanted.refs:
        for one in fields_of(ref.student.schema, given) if ref.student else ():
            if fields.setdefault(one.name, one) != one:
                raise OneName(f"field '{one.name}': '{ref.name}' reads it as {one.kind}, another model otherwise")
    taken = {column_of(f) for f in fields.values() if f.kind == "categorical"}
    for name in wanted.categories:
        if name not in taken:
            fields[f"slice-{name}"] = FieldConfig(name=f"slice-{name}", side="request", kind="categorical", column=name)
    return fields


class _Rows:
    """Columns being filled."""

    def __init__(self, found: Scan, wanted: Wanted, fields: Mapping[str, FieldConfig]) -> None:
        self.wanted, self.found, self.n = wanted, found, 0
        size = found.counts.used
        self.int: dict[str, NDArray[np.int64]] = {
            name: np.empty(size, dtype=np.int64) for name in ("user", "request", "item", "stamp", *wanted.categories)
        }
        self.float: dict[str, NDArray[Any]] = {}
        self.size = size
        self.scorers = {r.name: RawScorer(r.student, fields) for r in wanted.refs if r.student}
        self.names = {name: Names() for name in wanted.categories}
        self.seen: dict[str, list[NDArray[np.int64]]] = {"user": [], "item": []}

    def take(self, batch: pa.RecordBatch, rows: Canonical) -> None:
        """Add a batch's rows."""
        if self.wanted.since is not None:
            late = rows.timestamp >= self.wanted.since
            if not late.all():
                batch, rows = self._keep(batch, rows, late)
        n, cut = len(rows.user), slice(self.n, self.n + len(rows.user))
        request = mix(rows.user, rows.timestamp) if rows.request is None else rows.request
        values = {"user": rows.user, "request": request, "item": rows.item, "stamp": rows.timestamp}
        for name, names in self.names.items():
            values[name] = names.keys(batch.column(name))
        for name, column in values.items():
            self.int[name][cut] = column
        floats = {"label": rows.label, **rows.numbers}
        floats |= {f"model:{name}": scorer(batch, rows) for name, scorer in self.scorers.items()} if n else {}
        for name, number in floats.items():
            if name not in self.float:
                self.float[name] = np.empty(self.size, dtype=number.dtype)
            self.float[name][cut] = number
        self.n += n

    def _keep(
        self, batch: pa.RecordBatch, rows: Canonical, late: NDArray[np.bool_]
    ) -> tuple[pa.RecordBatch, Canonical]:
        self.seen["user"].append(np.unique(rows.user[~late]))
        self.seen["item"].append(rows.item[~late])
        return batch.take(pa.array(np.flatnonzero(late))), select(rows, late)

    def finish(self, digest: str, found: Scan, notes: list[str]) -> ScoredLog:
        """Return the rows, sorted by request where they are not."""
        if self.n == 0:
            first, last = utc(found.first_time), utc(found.last_time)
            raise NothingLeft(
                f"no row of the log is as late as --since {utc(self.wanted.since or 0)}: its rows are from {first} "
                f"to {last}; give a later log or an earlier time"
            )
        keys: dict[str, NDArray[np.int64]] = {}
        codes: dict[str, NDArray[np.int32]] = {}
        for name in ("request", "user", "item"):
            # The 8-byte keys go before the next column's are sorted: this is where the most memory is held.
            keys[name], codes[name] = numbered(self.int.pop(name)[: self.n])
        del keys["request"]
        ints = {name: column[: self.n] for name, column in self.int.items()}
        floats = {name: column[: self.n] for name, column in self.float.items()}
        if (codes["request"][1:] < codes["request"][:-1]).any():
            order = np.argsort(codes["request"], kind="stable")
            codes = {name: column[order] for name, column in codes.items()}
            ints = {name: column[order] for name, column in ints.items()}
            floats = {name: column[order] for name, column in floats.items()}
        scores = self._scores(floats)
        return ScoredLog(
            digest,
            found.counts.to_json(),
            codes["user"],
            codes["request"],
            codes["item"],
            keys["user"],
            keys["item"],
            ints["stamp"],
            floats["label"],
            floats.get("weight", np.broadcast_to(np.float32(1.0), self.n)),
            {name.removeprefix("column:").removeprefix(CHANCE): v for name, v in floats.items()},
            scores,
            {name: ints[name] for name in self.wanted.categories},
            self.names,
            {k: np.concatenate(v) if v else np.zeros(0, dtype=np.int64) for k, v in self.seen.items()},
            notes,
        )

    def _scores(self, floats: dict[str, NDArray[Any]]) -> dict[str, Scores]:
        """Return every model's scores, and take their numbers out of `floats`."""
        scores = {}
        for ref in self.wanted.refs:
            if ref.column:
                kind = kind_of(self.wanted.scores, ref.column)
                scores[ref.name] = logits_of(ref.column, floats.pop(score_of(ref.column)), kind, floats["label"])
            else:
                scores[ref.name] = scores_of(floats.pop(f"model:{ref.name}"))
        return scores


def _left_out(found: Scan, quarantine: Path) -> list[str]:
    """Return what became of rows that are not compared, and where to look at them."""
    counts, notes = found.counts, []
    if counts.used < counts.read:
        notes.append(counts.line())
    if counts.bad:
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in counts.quarantined.most_common())
        notes.append(f"quarantined: {reasons}; most from {counts.worst_told()}; all in {quarantine}")
    if counts.deduplicated:
        other = f"; {counts.contradicting:,} had another label" if counts.contradicting else ""
        notes.append(f"deduplicated {counts.deduplicated:,}: {same_event(found.event_columns)}{other}")
    return notes
