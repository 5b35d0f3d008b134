"""The evaluate stage: every model on the test days, the served one from its files on disk."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recsys_kd.batch import Bag, Batch, RankingModel
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.calibration import Platt
from recsys_kd.distil.loop import score_rows
from recsys_kd.evaluate.evaluation import Evaluation, evaluate
from recsys_kd.evaluate.sample import Sample
from recsys_kd.flow.goldens import golden_query
from recsys_kd.flow.latency import raw_query
from recsys_kd.flow.models import LoggedTeacher
from recsys_kd.progress import Progress
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.schema import ITEM, USER, Schema
from recsys_kd.settings import EvaluateConfig
from recsys_kd.tables import CompiledStudent

Floats = NDArray[np.float32]
PAIRS = (
    ("control", "teacher"),
    ("student", "control"),
    ("student", "teacher"),
    ("pruned", "student"),
    ("recovered", "pruned"),
    ("served", "recovered"),
    ("served", "student"),
    ("control served", "control"),
    ("served", "control served"),
    ("served", "teacher"),
)
_TIMED_CANDIDATES, _TIMED_RUNS = 1000, 30


@dataclass(frozen=True)
class Calibrated:
    """A model and the Platt scaling that was fitted to it on validation."""

    model: RankingModel
    platt: Platt


@dataclass
class Fallback:
    """Lookups by field: of ids that training never saw often enough (`unknown`), and that used a fallback row `before`
    pruning and `after` it.

    Items are known by their fields too: an unknown one of the catalogue has a row of its own, made of them, in which
    the id's part is the fallback's. It uses no fallback row.
    """

    lookups: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def add(self, model: OfflineModel, batch: Batch, items: NDArray[np.int64], dataset: Dataset) -> None:
        """Count a batch's lookups."""
        for name, (missed, lookups) in model.fallback_lookups(batch, items).items():
            rows, unknown = _encoded_rows(batch, items, dataset, name)
            self.lookups[name] += lookups
            self.missed[name] += missed
            self.unseen[name] += int((rows == unknown).sum())
            self.unknown[name] += int(_is_unknown(rows, unknown, dataset, name).sum())

    def shares(self) -> dict[str, dict[str, float]]:
        """Return each field's share of lookups that are `unknown`, and that use the fallback `before` and `after`."""
        counted = {"unknown": self.unknown, "before": self.unseen, "after": self.missed}
        return {when: {f: n[f] / max(self.lookups[f], 1) for f in self.lookups} for when, n in counted.items()}


def _encoded_rows(batch: Batch, items: NDArray[np.int64], dataset: Dataset, name: str) -> tuple[NDArray[np.int64], int]:
    """Return the rows that a field looks up in an encoded log, and that of unknown ids; items have a row whole."""
    if name == ITEM:
        return items, len(dataset.keys("item"))
    rows = batch.bags[name].values if name in batch.bags else batch.ids[name]
    return rows, dataset.schema.rows(dataset.schema.field(name)) - 1


def _is_unknown(rows: NDArray[np.int64], unknown: int, dataset: Dataset, name: str) -> NDArray[np.bool_]:
    """Return which lookups are of ids without an embedding; of a history, rows beyond `unknown` are the catalogue's."""
    if name == ITEM:
        found: NDArray[np.bool_] = dataset.item_ids(ITEM)[rows] == dataset.schema.rows(dataset.schema.field(ITEM)) - 1
        return found
    return rows >= unknown


def as_taken(batch: Batch, log: Schema, model: Schema) -> Batch:
    """Return a batch of a log in the form that a model of an equal contract takes: its own means, its own lengths."""
    dense, bags = dict(batch.dense), dict(batch.bags)
    for theirs in model.fields:
        ours = log.field(theirs.name)
        if theirs.kind == "dense" and (ours.mean, ours.std) != (theirs.mean, theirs.std):
            raw = batch.dense[theirs.name].astype(np.float64) * ours.std + ours.mean
            dense[theirs.name] = ((raw - theirs.mean) / theirs.std).astype(np.float32)
        elif theirs.kind == "bag" and 0 < theirs.max_length < (ours.max_length or theirs.max_length + 1):
            bags[theirs.name] = last_values(batch.bags[theirs.name], theirs.max_length)
    return replace(batch, dense=dense, bags=bags)


def last_values(bag: Bag, most: int) -> Bag:
    """Return each row's last `most` values."""
    lengths = np.diff(bag.offsets)
    from_end = np.repeat(bag.offsets[1:], lengths) - np.arange(bag.offsets[0], bag.offsets[-1])
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, most))])
    return Bag(bag.values[from_end <= most], offsets)


def score_test(model: Calibrated, dataset: Dataset) -> Floats:
    """Return calibrated logits of the test rows."""
    return model.platt(score_rows(model.model, dataset, dataset.splits["test"]))


def score_compiled(student: CompiledStudent, dataset: Dataset) -> tuple[Floats, Fallback]:
    """Return a compiled student's logits of the test rows, and how its lookups fared.

    A student of another night gets the log in its own standardization and history length. Ids that it knows and this
    log's training days do not are encoded as unknown, so such rows are scored by its fallback: what an old champion
    knows of users who came back only on the test days is not counted for it.
    """
    model, rows = OfflineModel(student, dataset), dataset.splits["test"]
    items, parts, fallback = dataset.column("item"), [], Fallback()
    for start in range(rows.start, rows.stop, 65_536):
        index = np.arange(start, min(start + 65_536, rows.stop))
        at, batch = items[index].astype(np.int64), dataset.batch(index, catalogue=True)
        batch = as_taken(batch, dataset.schema, student.schema)
        parts.append(model.score_rows(batch, at))
        fallback.add(model, batch, at, dataset)
    return np.concatenate(parts), fallback


def test_sample(dataset: Dataset) -> Sample:
    """Return labels, weights, users and requests of the test rows."""
    rows = dataset.splits["test"]
    cut = slice(rows.start, rows.stop)
    weighted = "weight" in dataset.columns  # else `column` makes a one for every row of the log
    return Sample(
        np.asarray(dataset.column("label")[cut], dtype=np.float32),
        np.asarray(dataset.column("weight")[cut] if weighted else np.ones(len(rows)), dtype=np.float32),
        dataset.column("user")[cut].astype(np.int64),
        dataset.column("request")[cut].astype(np.int64),
    )


def slices_of(dataset: Dataset) -> dict[str, NDArray[np.bool_]]:
    """Return masks of the test rows: items by training traffic, users by whether training knew them."""
    rows = dataset.splits["test"]
    traffic = dataset.traffic("item")
    seen = traffic[dataset.column("item")[rows.start : rows.stop].astype(np.int64)]
    known = traffic[:-1][traffic[:-1] > 0]
    low, high = np.quantile(known, [0.2, 0.8]) if len(known) else (0.0, 0.0)
    new_user = dataset.column(USER)[rows.start : rows.stop] == dataset.schema.vocabularies[USER].fallback
    return {
        "unseen items": seen == 0,
        "rare items (lowest fifth)": (seen > 0) & (seen <= low),
        "middle items": (seen > low) & (seen <= high),
        "popular items (highest fifth)": seen > high,
        "new users": new_user,
        "known users": ~new_user,
    }


def evaluate_models(
    logits: Mapping[str, Floats], dataset: Dataset, config: EvaluateConfig, progress: Progress
) -> Evaluation:
    """Return all metrics of all models on the test rows."""
    pairs = tuple(p for p in (*PAIRS, ("served", "champion")) if p[0] in logits and p[1] in logits)
    with progress.task("evaluate", len(logits), "models") as task:
        found = evaluate(logits, test_sample(dataset), config, pairs, slices_of(dataset))
        task.advance(len(logits))
    return found


def export_gap(served: Floats, recovered: Floats) -> dict[str, float]:
    """Return how far the coded export's logits are from the same student's in float32: mean and worst."""
    gap = np.abs(served - recovered)
    return {"mean_logit_gap": float(gap.mean()), "worst_logit_gap": float(gap.max())}


def _median_us(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e6)


def one_request(dataset: Dataset, candidates: int) -> Batch:
    """Return the first test row's request with many candidates, the items of the rows that follow it."""
    rows = dataset.splits["test"]
    batch = dataset.batch(np.resize(np.arange(rows.start, rows.stop), candidates))
    same = dataset.batch(np.full(candidates, rows.start))
    mine = {f.name for f in dataset.schema.of(side="request")}
    return replace(
        batch,
        ids={n: (same if n in mine else batch).ids[n] for n in batch.ids},
        bags={n: (same if n in mine else batch).bags[n] for n in batch.bags},
        dense={n: (same if n in mine else batch).dense[n] for n in batch.dense},
    )


def scoring_time(dataset: Dataset, models: Mapping[str, RankingModel], served: Path) -> dict[str, float]:
    """Return median microseconds to score one request of 1,000 candidates on one thread, torch's and BLAS's.

    A teacher that is known by its logged scores is left out: looking them up is not scoring.
    """
    batch = one_request(dataset, _TIMED_CANDIDATES)
    ranker = Ranker.open(served)
    start = int(dataset.splits["test"].start)
    golden = golden_query(ranker.student, dataset, start, np.resize(dataset.keys("item"), _TIMED_CANDIDATES))
    query = raw_query(ranker.schema, golden, _TIMED_CANDIDATES)
    calls: dict[str, Callable[[], Any]] = {
        n: partial(m.score, batch) for n, m in models.items() if not isinstance(m, LoggedTeacher)
    }
    calls["served"] = lambda: ranker.score(query.request, query.candidates, query.features)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return {name: _median_us(call) for name, call in calls.items()}
    finally:
        torch.set_num_threads(threads)
