"""What clients that are slow, idle or gone may hold of a server: no error lines, no scoring slots, no descriptors."""

import logging
import time

from tests.plugins.kserve_host import half_sent


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
