"""A real Redis server of a test's own: a free port, a temporary folder, append-only file on."""

import itertools
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import redis

_PORTS = range(15_000, 32_000)
"""Below those that the system gives to clients: what is free now still is when a server comes to take it."""
_next = itertools.count(os.getpid() * 101)


def free_port() -> int:
    """Return a port that nobody listens at; processes that run side by side begin at different ones."""
    while True:
        port = _PORTS[next(_next) % len(_PORTS)]
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                s.bind(("127.0.0.1", port))
                return port


class RedisServer:
    """Starts, stops, kills and restarts one server; `url(db)` names it."""

    def __init__(
        self, folder: Path, *options: str, scheme: str = "redis", environment: dict[str, str] | None = None
    ) -> None:
        server = shutil.which("redis-server")
        assert server, "redis-server is missing; run `make setup`, or install it from the system's packages"
        self.port, self.folder, self.scheme, self.environment = free_port(), folder, scheme, environment
        port = ["--port", "0", "--tls-port", str(self.port)] if scheme == "rediss" else ["--port", str(self.port)]
        self.command = [server, *port, "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
        if "--appendonly" not in options:
            self.command += ["--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, env=self.environment)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)  # nothing to wait on: the server tells nobody that it is up
        raise TimeoutError("redis-server did not start")

    def url(self, db: int = 0, login: str = "", query: str = "") -> str:
        return f"{self.scheme}://{login}127.0.0.1:{self.port}/{db}{query}"

    def client(self, db: int = 0) -> "redis.Redis":
        return redis.Redis(port=self.port, db=db, decode_responses=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
