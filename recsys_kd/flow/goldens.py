"""Golden queries: requests of the log with the logits that an artifact must give them wherever it is opened."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from recsys_kd.artifact.manifest import Golden
from recsys_kd.data.dataset import Dataset
from recsys_kd.runtime.ranker import Ranker, decode_golden
from recsys_kd.runtime.values import MISSING
from recsys_kd.tables import CompiledStudent

GOLDEN_REQUESTS, GOLDEN_CANDIDATES = 3, 4


def golden_queries(student: CompiledStudent, dataset: Dataset) -> tuple[Golden, ...]:
    """Return a few requests of the test days with the logits that this student gives them."""
    rows = dataset.splits["test"]
    starts = np.unique(np.linspace(rows.start, rows.stop - 1, GOLDEN_REQUESTS).astype(np.int64))
    items = dataset.keys("item")
    picked = items[np.linspace(0, len(items) - 1, GOLDEN_CANDIDATES).astype(np.int64)]
    return tuple(golden_query(student, dataset, int(row), picked) for row in starts)


def golden_query(student: CompiledStudent, dataset: Dataset, row: int, items: NDArray[np.int64]) -> Golden:
    """Return a log row's request with candidate `items` (keys), and the logits that this student gives them."""
    schema, batch = dataset.schema, dataset.batch(np.array([row]))

    def key(vocabulary: str, at: int) -> int:
        known = dataset.keys(vocabulary)
        return int(known[at]) if at < len(known) else MISSING

    request = schema.of(side="request")
    candidate = schema.of(side="candidate")
    golden = Golden(
        ids={f.name: key(f.vocabulary or "", int(batch.ids[f.name][0])) for f in request if f.name in batch.ids},
        bags={
            f.name: [key(f.vocabulary or "", int(v)) for v in batch.bags[f.name].values]
            for f in request
            if f.kind == "bag"
        },
        dense={f.name: [float(x) for x in batch.dense[f.name][0]] for f in request if not f.is_lookup},
        candidates=[int(k) for k in items],
        features={
            f.name: [key(f.vocabulary or "", int(batch.ids[f.name][0]))] * len(items)
            if f.is_lookup
            else [[float(x) for x in batch.dense[f.name][0]]] * len(items)
            for f in candidate
        },
        logits=[],
    )
    scores = Ranker(student).score_encoded(*decode_golden(student, golden))
    return dataclasses.replace(golden, logits=[float(s) for s in scores])
