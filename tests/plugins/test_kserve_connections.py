"""What clients that are slow, idle or gone may hold of a server: no error lines, no scoring slots, no descriptors."""

import asyncio
import json
import logging
import resource
import socket
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from recsys_kd_kserve import connections
from recsys_kd_kserve.server import Server
from tests.plugins.kserve_host import LISTED, configured, half_sent
from tests.plugins.processes import Process

INFER = "/v2/models/shop/infer"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n"


@contextmanager
def running(world, **limits):
    """Run a server of its own, and a client of it."""
    made = Server(configured(world, **limits))
    made.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{made.port}", timeout=5) as client:
        yield made, client
    made.stop()


def half_headed(port):
    """Send half of a request's headers."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(LIVE)
    return connection


def answer(connection):
    """Read an answer, of which all that is here end so."""
    found = b""
    while not found.endswith(b"}"):
        found += connection.recv(4096)
    return found


def refused(http):
    """Return the counts of REST refusals by status."""
    head = 'recsys_kd_refused_requests_total{protocol="rest",status="'
    lines = [line.removeprefix(head) for line in http.get("/metrics").text.splitlines() if line.startswith(head)]
    return {int(status): float(n) for status, n in (line.split('"} ') for line in lines)}


def wait(condition, seconds=30.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_client_that_hangs_up_in_mid_body_is_neither_a_defect_nor_a_line_of_the_log(server, http, caplog):
    before = refused(http)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            half_sent(server.port).close()
        wait(lambda: sum(refused(http).values()) == sum(before.values()) + 5)
    assert refused(http) == before | {499: before.get(499, 0) + 5}
    assert caplog.records == []


def test_bodies_that_do_not_come_take_no_place_of_those_that_came(world):
    with running(world, max_requests=2) as (made, client):
        slow = [half_sent(made.port) for _ in range(8)]
        for _ in range(3):
            assert client.post(INFER, json=LISTED).status_code == 200
        for connection in slow:
            connection.close()


def test_bodies_in_reading_hold_so_many_bytes_at_most(world):
    body = json.dumps(LISTED).encode()
    size = len(body) + 100
    with running(world, max_requests=2, max_bytes=size) as (made, client):
        with closing(half_sent(made.port, size)) as one, closing(half_sent(made.port, size)) as other:
            for connection in (one, other):
                connection.sendall(b" " * (size - 20))  # with what was sent before: 11 bytes are missing
            wait(lambda: client.post(INFER, content=body).status_code == 429)
            found = client.post(INFER, content=body)
            assert f"more than {2 * size} bytes of bodies are being read" in found.json()["error"]
        wait(lambda: client.post(INFER, content=body).status_code == 200)


def test_headers_that_do_not_come_end_their_connection(world):
    with running(world, read_seconds=0.5) as (made, client):
        began = time.monotonic()
        with closing(half_headed(made.port)) as slow:
            for _ in range(3):
                time.sleep(0.2)
                slow.sendall(b"x: y\r\n")  # more of them wins no time
            assert slow.recv(4096) == b"" and time.monotonic() - began < 5
        assert client.get("/v2/health/live").status_code == 200


def test_a_connection_that_is_kept_may_wait_between_its_requests_but_not_within_their_headers(world):
    with running(world, read_seconds=0.5) as (made, _):
        kept, late = half_headed(made.port), half_headed(made.port)
        with closing(kept), closing(late):
            for connection in (kept, late):
                connection.sendall(b"\r\n")
                assert answer(connection).startswith(b"HTTP/1.1 200")
            late.sendall(LIVE)
            time.sleep(2)  # uvicorn keeps it for 5 s
            kept.sendall(LIVE + b"\r\n")
            assert answer(kept).startswith(b"HTTP/1.1 200")
            assert late.recv(4096) == b""


def test_more_connections_than_allowed_are_refused_until_others_end(world):
    with running(world, max_connections=3, read_seconds=2.0) as (made, client):
        slow = [half_headed(made.port) for _ in range(3)]
        with closing(socket.create_connection(("127.0.0.1", made.port), timeout=30)) as more:
            head, _, body = more.recv(4096).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ") and "no more connections" in json.loads(body)["error"]
            assert more.recv(4096) == b""
        for connection in slow:
            assert connection.recv(4096) == b""
            connection.close()
        assert client.get("/v2/health/live").status_code == 200 and refused(client) == {503: 1}


@pytest.mark.parametrize(("descriptors", "most"), [(-1, 512), (1 << 20, 512), (128, 64)])
def test_rest_takes_half_of_the_descriptors_at_most(monkeypatch, descriptors, most):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert connections._at_most(512) == most


def test_a_process_without_descriptors_says_so_once_and_answers_when_there_are_some(world, tmp_path):
    config = tmp_path / "serve.yaml"
    config.write_text(json.dumps({"state": str(world.pointers), "read_seconds": 1, "poll_seconds": 3600}))
    process = Process("--model", "shop", "--registry", str(world.store / "registry.sqlite"), "--config", str(config))
    try:
        url, pid = process.event("listening")["rest"], process.process.pid
        few = len(list(Path(f"/proc/{pid}/fd").iterdir())) + 10
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, few))
        before, slow = len(process.raw), [half_headed(int(url.rpartition(":")[2])) for _ in range(20)]
        assert httpx.get(f"{url}/v2/health/live", timeout=30).status_code == 200
        for connection in slow:
            connection.close()
        said = [line["message"] for line in process.lines[before:]]
        assert len(said) == 1 and said[0].endswith("Too many open files; raise `ulimit -n`")
    finally:
        process.terminate()
        process.end()


def test_other_errors_of_the_event_loop_are_still_told(caplog):
    async def fail():
        connections.quieten(loop := asyncio.get_running_loop())
        for _ in range(3):
            loop.call_exception_handler({"message": "another defect"})

    asyncio.run(fail())
    assert [record.getMessage() for record in caplog.records] == ["another defect"] * 3
