"""What a server refuses, and how it says so."""

import json
import threading

import grpc
import numpy as np
import pytest

from recsys_kd.runtime.encode import BadRequest
from recsys_kd_kserve.client import RestClient, ServerRefused
from tests.plugins.kserve_host import LISTED, call, expected
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST


def listed(name, /, **changed):
    """Return a request in which one input is changed."""
    return {"inputs": [t | changed if t["name"] == name else t for t in LISTED["inputs"]]}


BAD = {
    "broken JSON": (b'{"inputs": [', "the body is not JSON"),
    "no JSON at all": (b"\xff\xfe\0", "the body is not JSON"),
    "JSON nested too deep": (b"[" * 100_000, "the body is not JSON"),
    "nothing": (b"", "the body is not JSON"),
    "no inputs": ({}, "'inputs' is not a list of tensors; expected is"),
    "a list": ([], "'inputs' is not a list of tensors"),
    "an input that is text": ({"inputs": ["x"]}, "an input lacks 'name'"),
    "an input without shape": ({"inputs": [{"name": "item_id", "datatype": "INT64", "data": []}]}, "lacks 'name'"),
    "a shape below nought": (listed("item_id", shape=[-4]), "lacks 'name'"),
    "no data": ({"inputs": [{"name": "item_id", "datatype": "INT64", "shape": [1]}]}, "neither 'data' nor binary"),
    "another type": (listed("item_id", datatype="FP32"), "'item_id' is FP32, INT64 or INT32 is expected"),
    "another shape": (listed("user_id", shape=[2], data=[1, 2]), r"'user_id' has shape [2], [1] is expected"),
    "another name": (listed("age", name="aged"), "unknown input 'aged'; this model takes user_id INT64[1]"),
    "ten million candidates": (listed("item_id", shape=[10_000_000]), "at most 5000 are taken at once"),
    "a number that is missing": ({"inputs": LISTED["inputs"][:4]}, "'age'"),
    "an infinite number": (listed("age", data=[1e308]), "'age'"),
    "a name as long as the body": (listed("age", name="x" * 500_000), "unknown input 'xxx"),
    "a shape of a hundred thousand": (listed("age", shape=[2] * 100_000), "'age' has shape first [2, 2, 2, 2, 2, 2"),
    "true for an id": (listed("user_id", data=[True]), "'user_id' is INT64, a value is true or false"),
    "ids of both kinds": (listed("item_id", data=[1, "a", 2, 3]), "'item_id' is INT64, a value is not"),
    "NaN": (json.dumps(listed("age", data=[float("nan")])).encode(), "the body is not JSON"),
    "unknown outputs": (LISTED | {"outputs": [{"name": "x"}]}, "unknown output 'x'; this model gives probability"),
    "outputs that are no list": (LISTED | {"outputs": "x"}, "'inputs' is not a list"),
    "parameters that are no mapping": (LISTED | {"parameters": 5}, "'parameters' is not a mapping"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_told_what_is_expected(http, what):
    body, words = BAD[what]
    found = http.post("/v2/models/shop/infer", content=body if isinstance(body, bytes) else json.dumps(body))
    assert found.status_code == 400 and words in found.json()["error"] and len(found.content) < 4000


@pytest.mark.parametrize("length", ["x", "-1", "999999", "²", "9" * 5000])
def test_a_header_length_that_is_none_is_refused(http, length):
    headers = [(b"inference-header-content-length", length.encode("latin-1"))]
    assert http.post("/v2/models/shop/infer", content=b"{}", headers=headers).status_code == 400


def test_binary_data_that_does_not_add_up_is_refused(http):
    for size, tail in ((32, b"\0" * 31), (32, b"\0" * 40), (-1, b""), ("x", b"")):
        parts = {"name": "item_id", "datatype": "INT64", "shape": [4], "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [parts]}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        assert http.post("/v2/models/shop/infer", content=head + tail, headers=headers).status_code == 400


def test_unknown_models_and_paths_are_not_found(http, rpc):
    for method, path in (
        ("POST", "nobody/infer"),
        ("GET", "nobody"),
        ("GET", "nobody/ready"),
        ("GET", "shop/versions/7"),
    ):
        found = http.request(method, f"/v2/models/{path}")
        assert found.status_code == 404, path
        assert ("no model 'nobody' is served here; served are: shop" in found.text) == ("nobody" in path)
    assert http.get("/v2/nothing").status_code == 404 and http.get("/v2/models/shop/infer").status_code == 405
    with pytest.raises(grpc.RpcError) as error:
        call(rpc, "ModelInfer", {"model_name": "nobody"})
    assert error.value.code() == grpc.StatusCode.NOT_FOUND and "served are: shop" in error.value.details()


def test_a_body_that_is_too_large_is_refused_with_the_limit(http):
    big = json.dumps(listed("item_id", shape=[10_000_000], data=[0] * 600_000)).encode()
    found = http.post("/v2/models/shop/infer", content=big)
    assert found.status_code == 413 and f"at most {1 << 20} are taken" in found.json()["error"]
    in_parts = http.post("/v2/models/shop/infer", content=iter([big[i : i + 65536] for i in range(0, len(big), 65536)]))
    assert in_parts.status_code == 413


def test_grpc_refuses_in_the_same_words(world, rpc):
    with pytest.raises(BadRequest, match="unknown input 'nobody'; this model takes user_id"):
        rpc.score(REQUEST | {"nobody": 1}, CANDIDATES, FEATURES)
    with pytest.raises(BadRequest, match="'item_id' is BYTES, INT64 or INT32 is expected"):
        rpc.score(REQUEST, ["a"], None)
    for odd in ([1, 2**70], [1, "a"], [1, None], {1, 2}, [2**70]):
        with pytest.raises(BadRequest, match="field 'item_id'"):
            rpc.score(REQUEST, odd, None)
    with pytest.raises(BadRequest, match="missing, NaN or infinite values can't be scored; give finite numbers"):
        rpc.score(REQUEST | {"age": float("nan")}, CANDIDATES, FEATURES)
    with pytest.raises(BadRequest, match="unknown input 'xxxx"):  # and not a status that was too long for gRPC
        rpc.score(REQUEST | {"x" * 500_000: 1}, CANDIDATES, FEATURES)
    with pytest.raises(BadRequest, match="5001 candidates, at most 5000"):
        rpc.score(REQUEST, np.zeros(5001, np.int64))
    with pytest.raises(ServerRefused, match="RESOURCE_EXHAUSTED"):
        rpc.score(REQUEST, np.zeros(10_000_000, np.int64))
    with pytest.raises(grpc.RpcError) as error:
        call(rpc, "ModelInfer", {"model_name": "shop", "raw_input_contents": [b"x"]})
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert np.array_equal(rpc.score(REQUEST, CANDIDATES, FEATURES).scores, expected(world, 2))


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "RepositoryModelLoad"])
def test_bytes_that_are_no_message_are_a_bad_request_and_not_a_line_of_the_log(rpc, caplog, method):
    send = rpc.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.RpcError) as error:
        send(b"\xff" * 20, timeout=30)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == "the 20 bytes are not a message of the protocol (protobuf)"
    assert caplog.records == []


def test_bad_requests_do_not_disturb_good_ones(world, server, http):
    wrong, stop, want = [], threading.Event(), expected(world, 2)

    def good():
        with RestClient(f"http://127.0.0.1:{server.port}", "shop", 30) as client:
            while not stop.is_set():
                try:
                    if not np.array_equal(client.score(REQUEST, CANDIDATES, FEATURES).scores, want):
                        wrong.append("other scores")
                except Exception as error:  # noqa: BLE001 - any is a finding
                    wrong.append(repr(error))

    thread = threading.Thread(target=good)
    thread.start()
    for body, _ in BAD.values():
        http.post("/v2/models/shop/infer", content=body if isinstance(body, bytes) else json.dumps(body))
    stop.set()
    thread.join()
    assert wrong == []
