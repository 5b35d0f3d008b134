"""What the server is told, and the errors that it answers with."""

from dataclasses import dataclass, replace

from recsys_kd.errors import InputError, OutsideError
from recsys_kd.runtime.plugins import ServingConfig

TOKEN = "RECSYS_KD_TOKEN"
"""Environment variable with the token that load and unload ask for; where it is not set, both are refused."""
VERSION_HEADER = "x-model-version"
LONGEST = 2000
"""Characters of a refusal: names come from requests, and gRPC drops a status whose text is longer than 8 KB."""


class PortTaken(OutsideError):
    """A port can't be listened on."""


class Refused(InputError):
    """A request that is not answered: HTTP status, and what is expected instead."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message if len(message) <= LONGEST else f"{message[:LONGEST]}..")
        self.status = status


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen, and how much at once.

    serving: what every host is told, for each of `models`. port 0: any free one. max_bytes: of a request's body.
    max_requests: in work at once over each protocol; more are refused with 429 (RESOURCE_EXHAUSTED). A request whose
    body is still being read is not in work; all such bodies together hold max_requests * max_bytes at most.
    max_connections: over REST; more get 503, and never more than half of the process's descriptors. read_seconds: for
    headers, and again for a body.
    """

    models: tuple[str, ...]
    serving: ServingConfig
    port: int = 8080
    grpc_port: int = 8081
    host: str = "127.0.0.1"
    max_bytes: int = 16 << 20
    max_candidates: int = 100_000
    max_requests: int = 64
    max_connections: int = 512
    read_seconds: float = 10.0
    drain_seconds: float = 20.0
    token: str | None = None

    def of(self, model: str) -> ServingConfig:
        """Return what a model's service is told."""
        return replace(self.serving, model=model)
