"""Scores of a real server to real clients, over both protocols."""

import numpy as np

from recsys_kd_kserve.client import RestClient, tensors
from tests.plugins.kserve_host import LISTED, call, expected
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST


def test_both_protocols_give_the_artifacts_scores_and_the_version(world, server, rpc):
    with RestClient(f"http://127.0.0.1:{server.port}", "shop", 30) as rest:
        for client in (rpc, rest):
            answer = client.score(REQUEST, CANDIDATES, FEATURES)
            assert np.array_equal(answer.scores, expected(world, 2))
            assert (answer.version, answer.digest) == (2, world.paths[2].name)
        assert rest.metadata()["versions"] == ["2", "1"]


def test_json_is_answered_in_json_with_the_version_in_body_and_header(world, http):
    found = http.post("/v2/models/shop/infer", json=LISTED | {"id": "42"})
    body = found.json()
    assert found.status_code == 200 and found.headers["x-model-version"] == "2"
    assert (body["id"], body["model_name"], body["model_version"]) == ("42", "shop", "2")
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probability", "FP32", [4])
    assert np.array_equal(np.float32(output["data"]), expected(world, 2))


def test_logits_are_given_where_they_are_asked_for(world, http):
    asked = LISTED | {"outputs": [{"name": "logit"}, {"name": "probability"}]}
    logit, probability = http.post("/v2/models/shop/infer", json=asked).json()["outputs"]
    assert np.array_equal(np.float32(logit["data"]), expected(world, 2, logits=True))
    assert np.allclose(probability["data"], expected(world, 2), atol=1e-7)


def test_a_version_in_memory_can_be_asked_for_by_its_number(world, http, rpc):
    found = http.post("/v2/models/shop/versions/1/infer", json=LISTED)
    assert found.headers["x-model-version"] == found.json()["model_version"] == "1"
    assert np.array_equal(np.float32(found.json()["outputs"][0]["data"]), expected(world, 1))
    made = tensors(REQUEST, CANDIDATES, FEATURES)
    inputs, raw = [d for d, _ in made], [r for _, r in made]
    given = {"model_name": "shop", "model_version": "1", "inputs": inputs, "raw_input_contents": raw}
    assert call(rpc, "ModelInfer", given).model_version == "1"
    for path in ("versions/9/infer", "versions/x/infer"):
        refused = http.post(f"/v2/models/shop/{path}", json=LISTED)
        assert refused.status_code == 404 and "is not loaded; loaded are 2, 1" in refused.json()["error"]


def test_grpc_takes_typed_contents_too_and_answers_in_them(world, rpc):
    kinds = {"INT64": "int64_contents", "FP32": "fp32_contents", "BYTES": "bytes_contents"}
    inputs = []
    for tensor in LISTED["inputs"]:
        flat = np.array(tensor["data"], dtype=object).ravel().tolist()
        data = [v.encode() if isinstance(v, str) else v for v in flat]
        inputs.append(
            {k: tensor[k] for k in ("name", "datatype", "shape")} | {"contents": {kinds[tensor["datatype"]]: data}}
        )
    found = call(rpc, "ModelInfer", {"model_name": "shop", "inputs": inputs})
    assert np.array_equal(np.float32(found.outputs[0].contents.fp32_contents), expected(world, 2))
