"""What clients that are slow, idle or gone may hold of a server: no error lines, no scoring slots, no descriptors."""

import json
import logging
import time
from contextlib import closing, contextmanager

import httpx

from recsys_kd_kserve.server import Server
from tests.plugins.kserve_host import LISTED, configured, half_sent

INFER = "/v2/models/shop/infer"


@contextmanager
def running(world, **limits):
    """Run a server of its own, and a client of it."""
    made = Server(configured(world, **limits))
    made.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{made.port}", timeout=5) as client:
        yield made, client
    made.stop()


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
