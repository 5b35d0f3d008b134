"""What `plan`, gate and report call the latency is that of what a service calls."""

import numpy as np
import pytest

from recsys_kd.artifact.write import write_artifact
from recsys_kd.flow.latency import CANDIDATES, latency_of, raw_query
from recsys_kd.runtime.library import kernel
from recsys_kd.runtime.ranker import Ranker
from tests.attacks.small import LINEAGE, golden
from tests.students import Shape, student

SHAPES = [Shape(), Shape(dense=True), Shape(dense=True, candidate=True)]


@pytest.mark.parametrize("shape", SHAPES, ids=["ids", "numbers", "candidate-side fields"])
def test_a_golden_query_in_raw_values_gets_its_golden_logits(shape):
    ranker = Ranker(student(shape)[0])
    query = golden(ranker.student)
    raw = raw_query(ranker.schema, query, len(query.candidates))
    got = ranker.score({**raw.request, "device": None}, raw.candidates, raw.features, logits=True)
    query.ids["device"] = -(2**63)  # the device is a string, of which only the hash is known
    want = ranker.score_encoded(*ranker._encoder.golden(query))
    assert np.abs(got - want).max() < 1e-5


def test_string_ids_are_made_up_and_numbers_put_back():
    ranker = Ranker(student(Shape(strings=True, dense=True))[0])
    raw = raw_query(ranker.schema, golden(ranker.student), 6)
    assert raw.candidates == ["id 0", "id 7", "id 13", "id 190", "id 0", "id 7"] and raw.features is None
    assert raw.request["age"] == 0.5 * 2.0 + 0.5 and raw.request["device"] == "id 5"


def test_what_is_timed_is_the_call_that_a_service_makes(tmp_path, monkeypatch):
    if kernel().library is None:
        pytest.skip(f"no native kernel: {kernel().detail}")
    model = student(Shape())[0]
    path = write_artifact(tmp_path, "shop", model, LINEAGE, (golden(model),)).path
    direct, seen = Ranker.score, []

    def score(self, request, candidates, features=None, **more):
        assert self._direct.score(request, candidates, logits=False) is not None
        seen.append(len(candidates))
        return direct(self, request, candidates, features, **more)

    monkeypatch.setattr(Ranker, "score", score)
    p50, p99 = latency_of(path, runs=3)
    assert 0 < p50 <= p99 and set(seen) == {CANDIDATES}
