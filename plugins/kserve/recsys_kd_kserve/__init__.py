"""Serves the registry's champion as a KServe model server: Open Inference Protocol v2 over REST and gRPC.

Importing this imports no kserve; `Backend.open` does.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys_kd.runtime.plugins import API_VERSION, ServingConfig
from recsys_kd.runtime.ranker import Candidates
from recsys_kd.runtime.service import Answer

if TYPE_CHECKING:
    from recsys_kd_kserve.client import GrpcClient
    from recsys_kd_kserve.server import Server

__all__ = ["Backend"]


class Backend:
    """A server on free ports of 127.0.0.1, in a thread of this process, and a client of it: see `plugins.Backend`.

    `recsys-kd serve` runs the same server in the foreground.
    """

    api_version = API_VERSION

    def __init__(self, server: "Server", client: "GrpcClient") -> None:
        self.server, self.client = server, client

    @classmethod
    def open(cls, config: ServingConfig) -> "Backend":
        """Start a server; requests are answered when this returns. Raises: NoModel."""
        from recsys_kd_kserve.client import GrpcClient
        from recsys_kd_kserve.config import ServerConfig
        from recsys_kd_kserve.server import Server

        server = Server(ServerConfig((config.model,), config, port=0, grpc_port=0))
        server.start()
        return cls(server, GrpcClient(f"127.0.0.1:{server.grpc_port}", config.model))

    def answer(
        self, request: Mapping[str, Any], candidates: Candidates, features: Mapping[str, Any] | None = None
    ) -> Answer:
        """Score candidates over gRPC. Raises: BadRequest."""
        return self.client.score(request, candidates, features)

    def refresh(self) -> None:
        """Let the server look at the registry now."""
        self.server.refresh()

    def close(self) -> None:
        """Drain, and end the server."""
        self.client.close()
        self.server.stop()
