"""Open Inference Protocol v2 over REST: KServe's endpoints, and what it lacks: versions, index, token, limits.

Every refusal is {"error": text} with a 4xx status; every response about a model has its version in `x-model-version`.
"""

import asyncio
import hmac
import time
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from recsys_kd.runtime.versions import NoModel
from recsys_kd_kserve.config import TOKEN, Refused, ServerConfig
from recsys_kd_kserve.kserve_api import (
    ModelNotFound,
    ModelNotReady,
    ModelRepositoryExtension,
    ServerNotReady,
    register_v2_endpoints,
)
from recsys_kd_kserve.metrics import Metrics
from recsys_kd_kserve.model import status_of
from recsys_kd_kserve.repository import Plane
from recsys_kd_kserve.wire import HEADER_LENGTH, encoded, json_response, loads, parse


def check_token(config: ServerConfig, given: str | None) -> None:
    """Raise Refused unless `Authorization` holds the server's token."""
    if config.token is None:
        raise Refused(403, f"load and unload are off: the server was started without {TOKEN}")
    if not given or not hmac.compare_digest(given.encode(), f"Bearer {config.token}".encode()):
        raise Refused(401, f"load and unload need the header 'Authorization: Bearer ' with the token of {TOKEN}")


class Rest:
    """The routes of one server."""

    def __init__(self, config: ServerConfig, plane: Plane, metrics: Metrics) -> None:
        self.config, self.plane, self.metrics = config, plane, metrics
        self.working = 0
        self.reading = 0
        """Bytes of the bodies that are being read."""

    def app(self) -> FastAPI:
        """Return the application."""
        app = FastAPI(title="recsys_kd", docs_url=None, redoc_url=None, openapi_url=None)
        for path, handler, methods in (
            ("/metrics", self.show_metrics, ["GET"]),
            ("/v2/models/{model_name}/infer", self.infer, ["POST"]),
            ("/v2/models/{model_name}/versions/{model_version}/infer", self.infer, ["POST"]),
            ("/v2/models/{model_name}", self.metadata, ["GET"]),
            ("/v2/models/{model_name}/versions/{model_version}", self.metadata, ["GET"]),
            ("/v2/models/{model_name}/ready", self.ready, ["GET"]),
            ("/v2/models/{model_name}/versions/{model_version}/ready", self.ready, ["GET"]),
            ("/v2/repository/index", self.index, ["GET", "POST"]),
            ("/v2/repository/models/{model_name}/load", self.load, ["POST"]),
            ("/v2/repository/models/{model_name}/unload", self.unload, ["POST"]),
        ):
            app.add_api_route(path, handler, methods=methods, response_model=None)
        register_v2_endpoints(app, self.plane, ModelRepositoryExtension(self.plane.model_registry))
        app.add_exception_handler(Exception, self._refuse)
        for kind in (Refused, NoModel, HTTPException):
            app.add_exception_handler(kind, self._refuse)
        app.add_exception_handler(ClientDisconnect, self._hung_up)
        app.add_exception_handler(ModelNotFound, lambda _, error: _error(404, str(error)))
        for kind in (ModelNotReady, ServerNotReady):
            app.add_exception_handler(kind, lambda _, error: _error(503, str(error)))
        return app

    async def _refuse(self, request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return _error(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}")
        status, text = status_of(error)
        self.metrics.refused("rest", status)
        return _error(status, text)

    async def _hung_up(self, request: Request, error: Exception) -> Response:
        """Count a client that went away in mid-body, as nginx does: it is no defect, and nobody reads the answer."""
        self.metrics.refused("rest", 499)
        return _error(499, "the client went away before its request was read")

    async def show_metrics(self) -> Response:
        """Return Prometheus metrics."""
        body, kind = self.metrics.render()
        return Response(body, media_type=kind)

    async def metadata(self, model_name: str, model_version: str | None = None) -> Response:
        """Return a model's inputs, outputs and versions in memory."""
        found = await self.plane.model_metadata(model_name, model_version)
        return json_response(found, version=model_version or found["versions"][0])

    async def ready(self, model_name: str, model_version: str | None = None) -> Response:
        """Say whether a model answers."""
        model = self.plane.model(model_name, model_version)
        answers = model.ready and not self.plane.draining
        version = model_version or model.versions()[0]
        return json_response({"name": model_name, "ready": answers}, 200 if answers else 503, version)

    async def index(self, request: Request) -> Response:
        """List what is in memory; `{"ready": true}` leaves out what does not answer."""
        wanted = await self._json(request) if request.method == "POST" else {}
        ready = isinstance(wanted, dict) and wanted.get("ready") is True
        return json_response(self.plane.model_registry.index(ready=ready))

    async def load(self, request: Request, model_name: str) -> Response:
        """Serve a model of the registry, or look at the registry now."""
        check_token(self.config, request.headers.get("authorization"))
        await asyncio.to_thread(self.plane.model_registry.load, model_name)
        version = self.plane.model(model_name).versions()[0]
        return json_response({"name": model_name, "load": True, "version": version}, version=version)

    async def unload(self, request: Request, model_name: str) -> Response:
        """Serve a model no more."""
        check_token(self.config, request.headers.get("authorization"))
        self.plane.model(model_name)
        await asyncio.to_thread(self.plane.model_registry.unload, model_name)
        return json_response({"name": model_name, "unload": True})

    async def infer(self, request: Request, model_name: str, model_version: str | None = None) -> Response:
        """Score a request's candidates."""
        began = time.perf_counter()
        try:
            model = self.plane.answering(model_name, model_version)
            body = await self._body(request)  # who is slow to send it holds no place of those who have
            if self.working >= self.config.max_requests:
                raise Refused(429, f"{self.working} requests are in work, no more are taken at once; try again")
            self.working += 1
            try:
                asked = replace(parse(body, request.headers.get(HEADER_LENGTH)), version=model_version)
                return encoded(model_name, asked, await model.scored(asked))
            finally:
                self.working -= 1
        finally:
            self.metrics.took("rest", time.perf_counter() - began)

    async def _json(self, request: Request) -> Any:
        body = await self._body(request)
        return loads(body) if body else {}

    async def _body(self, request: Request) -> bytes:
        """Read a body of bounded size in bounded time."""
        most = self.config.max_bytes
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > most:
            raise Refused(413, f"the body has {announced} bytes, at most {most} are taken; send fewer candidates")
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.config.read_seconds):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    self.reading += len(part)
                    self._check_size(size)
        except TimeoutError:
            raise Refused(408, f"the body did not come within {self.config.read_seconds:g} s") from None
        finally:
            self.reading -= size
        return b"".join(parts)

    def _check_size(self, size: int) -> None:
        most, all_most = self.config.max_bytes, self.config.max_bytes * self.config.max_requests
        if size > most:
            raise Refused(413, f"the body has more than {most} bytes; send fewer candidates")
        if self.reading > all_most:
            raise Refused(429, f"more than {all_most} bytes of bodies are being read at once; try again")


def _error(status: int, text: str) -> Response:
    return json_response({"error": text}, status)
