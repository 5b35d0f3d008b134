"""The KServe plugin: a real server with real clients, over both protocols."""

import asyncio
import json
import socket
import threading

import grpc
import httpx
import numpy as np
import pytest

from recsys_kd.runtime.encode import BadRequest
from recsys_kd.runtime.plugins import ServingConfig
from recsys_kd.runtime.ranker import Ranker
from recsys_kd_kserve.client import GrpcClient, RestClient, ServerRefused, tensors
from recsys_kd_kserve.config import PortTaken, ServerConfig
from recsys_kd_kserve.kserve_api import messages
from recsys_kd_kserve.server import Server
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST, World

TOKEN = "a-token-of-the-test"
LISTED = {
    "inputs": [
        {"name": "item_id", "datatype": "INT64", "shape": [4], "data": CANDIDATES},
        {"name": "user_id", "datatype": "INT64", "shape": [1], "data": [3]},
        {"name": "device", "datatype": "BYTES", "shape": [1], "data": ["phone"]},
        {"name": "history", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        {"name": "age", "datatype": "FP32", "shape": [1], "data": [30.0]},
        {"name": "mood", "datatype": "FP32", "shape": [4], "data": REQUEST["mood"]},
        {"name": "position", "datatype": "INT64", "shape": [4], "data": FEATURES["position"]},
        {"name": "seller", "datatype": "INT64", "shape": [4], "data": FEATURES["seller"]},
        {"name": "affinity", "datatype": "FP32", "shape": [4], "data": FEATURES["affinity"]},
        {"name": "image", "datatype": "FP32", "shape": [4, 3], "data": FEATURES["image"]},
    ]
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("world"))
    made.paths = {1: made.publish(1), 2: made.publish(2)}
    return made


def configured(world, **limits):
    serving = ServingConfig("shop", str(world.store / "registry.sqlite"), pointers=world.pointers, poll_seconds=3600.0)
    return ServerConfig(("shop",), serving, 0, 0, token=TOKEN, **limits)


@pytest.fixture(scope="module")
def server(world):
    made = Server(configured(world, max_bytes=1 << 20, max_candidates=5000))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def rpc(server):
    with GrpcClient(f"127.0.0.1:{server.grpc_port}", "shop", 30) as client:
        yield client


def expected(world, version, **options):
    return Ranker.open(world.paths[version]).score(REQUEST, CANDIDATES, FEATURES, **options)


def call(rpc, method, request, **metadata):
    """Call a method of the protocol."""
    kind, answer = getattr(messages, f"{method}Request"), getattr(messages, f"{method}Response")
    path = f"/inference.GRPCInferenceService/{method}"
    made = rpc.channel.unary_unary(path, kind.SerializeToString, answer.FromString)
    return made(kind(**request), timeout=30, metadata=list(metadata.items()))


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


def test_metadata_ready_and_live_are_told_over_both_protocols(http, rpc):
    assert http.get("/v2").json()["name"] == "kserve" and http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/shop/ready", "/v2/models/shop/versions/2/ready"):
        found = http.get(path)
        assert found.json() == {"name": "shop", "ready": True} and found.headers["x-model-version"] == "2"
    assert http.get("/v2/models").json() == {"models": ["shop"]}
    described = http.get("/v2/models/shop").json()
    assert {"name": "item_id", "datatype": "INT64", "shape": [-1]} in described["inputs"]
    assert described["versions"] == ["2", "1"] and described["platform"] == "recsys_kd"
    assert call(rpc, "ServerLive", {}).live and call(rpc, "ServerReady", {}).ready
    assert call(rpc, "ModelReady", {"name": "shop", "version": "1"}).ready
    told = call(rpc, "ModelMetadata", {"name": "shop"})
    assert [i.name for i in told.inputs] == [i["name"] for i in described["inputs"]] and told.versions == ["2", "1"]


def test_the_repository_lists_every_version_in_memory(http):
    rows = [
        {"name": "shop", "version": "2", "state": "READY", "reason": "champion"},
        {"name": "shop", "version": "1", "state": "READY", "reason": "previous"},
    ]
    assert http.post("/v2/repository/index").json() == http.get("/v2/repository/index").json() == rows
    assert http.post("/v2/repository/index", json={"ready": True}).json() == rows


def test_load_and_unload_need_the_token(http, rpc, world):
    path = "/v2/repository/models/shop/unload"
    assert http.post(path).status_code == 401
    assert http.post(path, headers={"authorization": "Bearer wrong"}).status_code == 401
    with pytest.raises(grpc.RpcError) as error:
        call(rpc, "RepositoryModelUnload", {"model_name": "shop"}, authorization="Bearer wrong")
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED and "RECSYS_KD_TOKEN" in error.value.details()
    right = {"authorization": f"Bearer {TOKEN}"}
    assert http.post(path, headers=right).json() == {"name": "shop", "unload": True}
    assert http.post("/v2/models/shop/infer", json=LISTED).status_code == 404
    assert http.get("/v2/health/ready").status_code == 503
    loaded = http.post("/v2/repository/models/shop/load", headers=right)
    assert loaded.json() == {"name": "shop", "load": True, "version": "2"}
    assert call(rpc, "RepositoryModelLoad", {"model_name": "shop"}, **right).isLoaded
    missing = http.post("/v2/repository/models/nobody/load", headers=right)
    assert missing.status_code == 404 and "names no champion of 'nobody'" in missing.json()["error"]
    assert np.array_equal(rpc.score(REQUEST, CANDIDATES, FEATURES).scores, expected(world, 2))


def test_without_a_token_load_and_unload_are_off(world):
    import dataclasses

    made = Server(dataclasses.replace(configured(world), token=None))
    made.start()
    refused = httpx.post(
        f"http://127.0.0.1:{made.port}/v2/repository/models/shop/unload", headers={"authorization": "Bearer x"}
    )
    made.stop()
    assert refused.status_code == 403 and "started without RECSYS_KD_TOKEN" in refused.json()["error"]


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
    "unknown outputs": (LISTED | {"outputs": [{"name": "x"}]}, "unknown output 'x'; this model gives probability"),
    "outputs that are no list": (LISTED | {"outputs": "x"}, "'inputs' is not a list"),
    "parameters that are no mapping": (LISTED | {"parameters": 5}, "'parameters' is not a mapping"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_told_what_is_expected(http, what):
    body, words = BAD[what]
    found = http.post("/v2/models/shop/infer", content=body if isinstance(body, bytes) else json.dumps(body))
    assert found.status_code == 400 and words in found.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "999999", "²"])
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
    with pytest.raises(BadRequest, match="5001 candidates, at most 5000"):
        rpc.score(REQUEST, np.zeros(5001, np.int64))
    with pytest.raises(ServerRefused, match="RESOURCE_EXHAUSTED"):
        rpc.score(REQUEST, np.zeros(10_000_000, np.int64))
    with pytest.raises(grpc.RpcError) as error:
        call(rpc, "ModelInfer", {"model_name": "shop", "raw_input_contents": [b"x"]})
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert np.array_equal(rpc.score(REQUEST, CANDIDATES, FEATURES).scores, expected(world, 2))


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


def half_sent(port, size=1000):
    """Begin a request, and do not finish it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /v2/models/shop/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n"
    connection.sendall(head.encode() + b'{"inputs"')
    return connection


def test_more_requests_at_once_than_allowed_are_refused_and_slow_ones_are_ended(world):
    made = Server(configured(world, max_requests=1, read_seconds=1.0))
    made.start()
    url = f"http://127.0.0.1:{made.port}"
    slow = half_sent(made.port)
    answers = []
    while 429 not in answers and len(answers) < 200:
        answers.append(httpx.post(f"{url}/v2/models/shop/infer", json=LISTED).status_code)
    assert httpx.get(f"{url}/v2/health/live").status_code == 200
    assert answers[-1] == 429 and set(answers) <= {200, 429}
    assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
    slow.close()
    assert httpx.post(f"{url}/v2/models/shop/infer", json=LISTED).status_code == 200
    made.stop()


def test_a_large_request_does_not_hold_up_the_event_loop(server, monkeypatch):
    model = server.repository.models["shop"]
    inside, go, loops = threading.Event(), threading.Event(), []

    def slow(payload, answer=model.answer):
        loops.append(asyncio._get_running_loop())
        inside.set()
        go.wait(30)
        return answer(payload)

    monkeypatch.setattr(model, "answer", slow)
    features = {
        name: np.tile(np.array(v), (1000, *[1] * (np.array(v).ndim - 1))).reshape(4000, *np.array(v).shape[1:])
        for name, v in FEATURES.items()
    }
    found = []

    def large():
        with RestClient(f"http://127.0.0.1:{server.port}", "shop", 30) as client:
            found.append(client.score(REQUEST, CANDIDATES * 1000, features).scores.shape)

    thread = threading.Thread(target=large)
    thread.start()
    assert inside.wait(30)
    assert httpx.get(f"http://127.0.0.1:{server.port}/v2/health/live", timeout=10).status_code == 200
    go.set()
    thread.join()
    assert found == [(4000,)] and loops == [None]


def test_metrics_tell_what_was_answered_refused_and_swapped(http, rpc):
    rpc.score(REQUEST | {"user_id": -1}, [-1, -2, 0, 7], FEATURES)
    lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if not line.startswith("#"))
    own = {k: float(v) for k, v in lines.items() if k.startswith("recsys_kd_")}
    two = 'model="shop",version="2"'
    assert own['recsys_kd_active_version{model="shop"}'] == 2 and own['recsys_kd_swaps_total{model="shop"}'] >= 1
    answers = own[f"recsys_kd_answers_total{{{two}}}"]
    assert answers >= 1 and own[f'recsys_kd_score_seconds_bucket{{le="+Inf",{two}}}'] == answers
    assert own[f"recsys_kd_candidates_total{{{two}}}"] >= 4 and 0 < own[f"recsys_kd_fallback_share{{{two}}}"] < 1
    assert own[f'recsys_kd_fallbacks_total{{field="user_id",{two}}}'] >= 1
    assert own[f'recsys_kd_probability_bucket{{le="+Inf",{two}}}'] >= 4
    assert any(k.startswith("recsys_kd_request_seconds_bucket") for k in own)
    assert "python_info" in http.get("/metrics").text


def test_a_port_that_is_taken_is_named(world, server):
    import dataclasses

    with pytest.raises(PortTaken, match=f"127.0.0.1:{server.port}: .*give another --port"):
        Server(dataclasses.replace(configured(world), port=server.port)).start()
    with pytest.raises(PortTaken, match=f"127.0.0.1:{server.grpc_port}: .*give another --grpc-port"):
        Server(dataclasses.replace(configured(world), grpc_port=server.grpc_port)).start()


def test_the_client_says_what_it_can_not_send_and_when_nobody_answers():
    with pytest.raises(BadRequest, match="field 'history': strings beside other values"):
        tensors({"history": ["a", 1]}, [1], None)
    with pytest.raises(BadRequest, match=r"field 'user_id': .* does not fit in 64 bits"):
        tensors({"user_id": 2**70}, [1], None)
    with RestClient("http://127.0.0.1:9", "shop") as client, pytest.raises(ServerRefused, match=r"127\.0\.0\.1:9: "):
        client.score({}, [1])
    with (
        GrpcClient("127.0.0.1:9", "shop") as client,
        pytest.raises(ServerRefused, match=r"127\.0\.0\.1:9: UNAVAIL"),
    ):
        client.score({}, [1])
