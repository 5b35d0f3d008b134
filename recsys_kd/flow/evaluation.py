"""The evaluate stage: every model on the test days, the served one from its files on disk."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys_kd.batch import Batch, RankingModel
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.calibration import Platt
from recsys_kd.distil.loop import score_rows
from recsys_kd.evaluate.evaluation import Evaluation, evaluate
from recsys_kd.evaluate.sample import Sample
from recsys_kd.flow.compression import golden_query
from recsys_kd.progress import Progress
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.runtime.ranker import Ranker, decode_golden
from recsys_kd.schema import USER
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


def score_test(model: Calibrated, dataset: Dataset) -> Floats:
    """Return calibrated logits of the test rows."""
    return model.platt(score_rows(model.model, dataset, dataset.splits["test"]))


def score_compiled(student: CompiledStudent, dataset: Dataset) -> tuple[Floats, dict[str, float]]:
    """Return a compiled student's logits of the test rows, and each field's share of lookups in the fallback row."""
    model, rows = OfflineModel(student, dataset), dataset.splits["test"]
    items, parts, shares = dataset.column("item"), [], []
    for start in range(rows.start, rows.stop, 65_536):
        index = np.arange(start, min(start + 65_536, rows.stop))
        batch, at = dataset.batch(index), items[index].astype(np.int64)
        parts.append(model.score_rows(batch, at))
        shares.append((len(index), model.fallback_share(batch, at)))
    total = sum(n for n, _ in shares)
    return np.concatenate(parts), {f: sum(n * s[f] for n, s in shares) / total for f in shares[0][1]}


def test_sample(dataset: Dataset) -> Sample:
    """Return labels, weights, users and requests of the test rows."""
    rows = dataset.splits["test"]
    cut = slice(rows.start, rows.stop)
    return Sample(
        np.asarray(dataset.column("label")[cut], dtype=np.float32),
        np.asarray(dataset.column("weight")[cut], dtype=np.float32),
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
    batch = dataset.batch(slice(rows.start, rows.stop))
    new_user = batch.ids[USER] == dataset.schema.vocabularies[USER].fallback
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


def scoring_time(dataset: Dataset, models: Mapping[str, RankingModel], served: Path) -> dict[str, float]:
    """Return median microseconds to score 1,000 candidates on one thread: batches for torch, requests for served."""
    rows = dataset.splits["test"]
    index = np.resize(np.arange(rows.start, rows.stop), _TIMED_CANDIDATES)
    batch: Batch = dataset.batch(index)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = {name: _median_us(lambda m=model: m.score(batch)) for name, model in models.items()}  # type: ignore[misc]
    finally:
        torch.set_num_threads(threads)
    ranker = Ranker.open(served)
    golden = golden_query(ranker.student, dataset, int(rows.start), np.resize(dataset.keys("item"), _TIMED_CANDIDATES))
    request, items, features = decode_golden(ranker.student, golden)
    times["served"] = _median_us(lambda: ranker.score_encoded(request, items, features))
    return times
