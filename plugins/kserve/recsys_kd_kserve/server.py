"""The server: loads its models, listens on REST and gRPC, and drains before it ends."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from recsys_kd.registry.protocol import Registry, RegistryUnreachable, State
from recsys_kd.registry.where import SQLITE, is_url, open_registry
from recsys_kd.runtime.plugins import ServingConfig
from recsys_kd.runtime.service import Service
from recsys_kd.runtime.shadow import Shadow
from recsys_kd.runtime.watcher import Watcher
from recsys_kd_kserve import rpc
from recsys_kd_kserve.config import PortTaken, ServerConfig
from recsys_kd_kserve.connections import HttpConfig, end_late, quieten
from recsys_kd_kserve.metrics import Metrics
from recsys_kd_kserve.model import RankingModel
from recsys_kd_kserve.repository import Plane, Repository
from recsys_kd_kserve.rest import Rest


class Reached:
    """A registry that is opened when it is asked, so that a service starts while it is away."""

    def __init__(self, where: str | None, store: Path) -> None:
        self.where, self.store = where, store
        self._opened: Registry | None = None

    def _open(self) -> Registry:
        path = self.store / SQLITE if self.where is None else Path(self.where)
        if not (self.where and is_url(self.where)) and not path.exists():  # SQLite would make one
            raise RegistryUnreachable(f"{path}: there is no such registry; give --store or --registry")
        if self._opened is None:
            self._opened = open_registry(self.where, self.store)
        return self._opened

    def state(self, model: str) -> State:
        """Return a model's state. Raises: RegistryUnreachable."""
        return self._open().state(model)

    def announce(self, model: str, service: str, digest: str, seconds: int) -> None:
        """Say what is loaded."""
        self._open().announce(model, service, digest, seconds)


def make_service(config: ServingConfig) -> Service:
    """Return the service of a model, not started."""
    registry = Reached(config.registry, config.store or Path("store"))
    keep = None
    if config.shadow_log is not None:
        from recsys_kd.flow.shadow_log import ParquetLog

        keep = ParquetLog(config.shadow_log / config.model)
    watcher = Watcher(
        config.model,
        registry,
        config.pointers,
        seconds=config.poll_seconds,
        store=config.store,
        challenger=config.canary > 0 or config.shadow > 0,
    )
    return Service(watcher, config.canary, Shadow(config.shadow, keep) if config.shadow else None)


class _Http(uvicorn.Server):
    """Uvicorn without signal handlers of its own: the server's drain both protocols."""

    async def on_tick(self, counter: int) -> bool:
        """Look for connections that are late, once a second."""
        if counter % 10 == 0:
            end_late(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class Server:
    """Serves the models of a configuration; `port` and `grpc_port` are known once it has started."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.port = self.grpc_port = 0
        self._executor = ThreadPoolExecutor(2, "score")
        self.repository = Repository(self._model)
        self.plane = Plane(self.repository, config.models)
        self.metrics = Metrics(self.repository)
        self._stop: Callable[[], Any] | None = None
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def _model(self, name: str) -> RankingModel:
        return RankingModel(make_service(self.config.of(name)), self.config.max_candidates, self._executor)

    def run(self, started: Callable[["Server"], object] = lambda server: None) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises: NoModel, PortTaken."""
        # A version that is being verified holds Python's lock for no longer than this while requests wait for it.
        sys.setswitchinterval(0.0005)
        asyncio.run(self._serve(started, signals=True))

    def start(self) -> None:
        """Serve in a thread; requests are answered when this returns. Raises: NoModel, PortTaken."""
        started = threading.Event()

        def run() -> None:
            try:
                asyncio.run(self._serve(lambda server: started.set(), signals=False))
            except BaseException as error:  # noqa: BLE001 - raised again where `start` was called
                self._failed = error
            finally:
                started.set()

        self._thread = threading.Thread(target=run, name="server", daemon=True)
        self._thread.start()
        started.wait()
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """Answer what has begun, then end the thread that `start` began."""
        if self._stop is not None and self._thread is not None:
            self._stop()
            self._thread.join()
            self._thread = None

    def refresh(self) -> None:
        """Look at the registry now, for every model."""
        for model in list(self.repository.models.values()):
            model.service.watcher.poll()

    async def _serve(self, started: Callable[["Server"], object], *, signals: bool) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        quieten(loop)
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        if signals:
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(each, stop.set)
        try:
            for name in self.config.models:
                await asyncio.to_thread(self.repository.load, name)
            await self._listen(started, stop)
        finally:
            for name in list(self.repository.models):
                await asyncio.to_thread(self.repository.unload, name)
            self._executor.shutdown()

    async def _listen(self, started: Callable[["Server"], object], stop: asyncio.Event) -> None:
        grpc, self.grpc_port = rpc.listen(self.config, rpc.Servicer(self.config, self.plane, self.metrics))
        listener = self._bind()
        app = Rest(self.config, self.plane, self.metrics).app()
        http = _Http(HttpConfig(app, self.config, self.metrics))
        serving = asyncio.create_task(http.serve(sockets=[listener]))
        await grpc.start()
        while not http.started and not serving.done():
            await asyncio.sleep(0.005)  # uvicorn tells nobody
        started(self)
        await stop.wait()
        self.plane.draining = True
        http.should_exit = True
        await asyncio.gather(serving, grpc.stop(self.config.drain_seconds))

    def _bind(self) -> socket.socket:
        # With the protocol named asyncio turns Nagle's algorithm off, else answers wait for acknowledgements.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.config.host, self.config.port))
        except OSError as error:
            listener.close()
            where = f"{self.config.host}:{self.config.port}"
            raise PortTaken(f"{where}: {error.strerror}; stop what listens there, or give another --port") from None
        self.port = int(listener.getsockname()[1])
        return listener
