"""How many REST connections a server holds, and how long one may take over its headers: uvicorn bounds neither.

Uvicorn's own `limit_concurrency` refuses requests, and so keeps those connections that never send one.
"""

import asyncio
import logging
import resource
import time
from math import inf
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recsys_kd_kserve.config import ServerConfig
from recsys_kd_kserve.metrics import Metrics

log = logging.getLogger("recsys_kd.serving")
_BUSY = b'{"error":"no more connections are taken at once; try again"}'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BUSY), _BUSY)
)
_ACCEPT = "socket.accept() out of system resource"
_QUIET_SECONDS = 60.0


def _at_most(wanted: int) -> int:
    """Return a number of connections that leaves half of the descriptors to gRPC, the registry and the artifacts."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if descriptors == resource.RLIM_INFINITY else min(wanted, descriptors // 2)


class Connection(HttpToolsProtocol):
    """A connection that knows by when its next request's headers must be there."""

    config: "HttpConfig"
    deadline = inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for a request."""
        self.deadline = self.loop.time() + self.config.read_seconds
        super().connection_made(transport)
        if len(self.connections) > self.config.max_connections:
            self.config.refused()
            transport.write(_REFUSAL)
            transport.close()

    def on_headers_complete(self) -> None:
        """Wait no more: from here on the body's time is bounded, by what reads it."""
        self.deadline = inf
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, where none is there already; uvicorn ends what stays silent before."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self.deadline = self.loop.time() + self.timeout_keep_alive + self.config.read_seconds


class HttpConfig(uvicorn.Config):
    """Uvicorn's configuration, with the bounds that its connections ask for."""

    def __init__(self, app: Any, config: ServerConfig, metrics: Metrics) -> None:
        super().__init__(
            app,
            http=Connection,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(config.drain_seconds),
        )
        self.read_seconds = config.read_seconds
        self.max_connections = _at_most(config.max_connections)
        self._metrics = metrics

    def refused(self) -> None:
        """Count a connection that was not taken."""
        self._metrics.refused("rest", 503)


def end_late(connections: set[Any], now: float) -> None:
    """End the connections whose headers did not come in time."""
    for connection in [c for c in connections if c.deadline < now]:
        connection.transport.abort()


def quieten(loop: asyncio.AbstractEventLoop) -> None:
    """Say once a minute that no descriptor is left; asyncio says it thousands of times a second, with a traceback."""
    said = -inf

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said
        if context.get("message") != _ACCEPT:
            loop.default_exception_handler(context)
        elif time.monotonic() - said > _QUIET_SECONDS:
            said = time.monotonic()
            log.error("no connection can be taken: %s; raise `ulimit -n`", context["exception"])

    loop.set_exception_handler(handle)
