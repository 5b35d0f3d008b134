"""What a server takes at once, what it counts, and what it can not start with."""

import asyncio
import socket
import threading

import httpx
import numpy as np
import pytest

from recsys_kd.runtime.encode import BadRequest
from recsys_kd_kserve.client import GrpcClient, RestClient, ServerRefused, tensors
from recsys_kd_kserve.config import PortTaken
from recsys_kd_kserve.server import Server
from tests.plugins.kserve_host import LISTED, configured, half_sent
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST


def held(model, monkeypatch):
    """Hold up a model's answers; return what is set once it answers, what lets it go, and the event loops it is in."""
    inside, go, loops = threading.Event(), threading.Event(), []

    def slow(payload, answer=model.answer):
        loops.append(asyncio._get_running_loop())
        inside.set()
        go.wait(30)
        return answer(payload)

    monkeypatch.setattr(model, "answer", slow)
    return inside, go, loops


def large(port, found):
    """Ask for 4000 scores in a thread of its own, and put their shape into `found`."""
    features = {
        name: np.tile(np.array(v), (1000, *[1] * (np.array(v).ndim - 1))).reshape(4000, *np.array(v).shape[1:])
        for name, v in FEATURES.items()
    }

    def ask():
        with RestClient(f"http://127.0.0.1:{port}", "shop", 30) as client:
            found.append(client.score(REQUEST, CANDIDATES * 1000, features).scores.shape)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_more_requests_at_once_than_allowed_are_refused_and_slow_ones_are_ended(world, monkeypatch):
    made = Server(configured(world, max_requests=1, read_seconds=1.0))
    made.start()
    inside, go, _ = held(made.repository.models["shop"], monkeypatch)
    url, found = f"http://127.0.0.1:{made.port}", []
    thread = large(made.port, found)
    assert inside.wait(30)
    refused = httpx.post(f"{url}/v2/models/shop/infer", json=LISTED)
    assert refused.status_code == 429 and "1 requests are in work" in refused.json()["error"]
    assert httpx.get(f"{url}/v2/health/live").status_code == 200
    go.set()
    thread.join()
    slow = half_sent(made.port)
    assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
    slow.close()
    assert httpx.post(f"{url}/v2/models/shop/infer", json=LISTED).status_code == 200 and found == [(4000,)]
    made.stop()


def test_a_large_request_does_not_hold_up_the_event_loop(server, monkeypatch):
    inside, go, loops = held(server.repository.models["shop"], monkeypatch)
    found = []
    thread = large(server.port, found)
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


def test_answers_do_not_wait_for_acknowledgements(world):
    """asyncio sets TCP_NODELAY on connections whose socket names its protocol, and on no others."""
    listener = Server(configured(world))._bind()
    listener.listen()
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


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
