"""Open Inference Protocol v2 over gRPC: KServe's servicer with versions, token, limits, and no log line per request."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from google.protobuf.message import DecodeError
from grpc import StatusCode, aio

from recsys_kd_kserve.config import PortTaken, Refused, ServerConfig
from recsys_kd_kserve.kserve_api import (
    InferenceServicer,
    ModelRepositoryExtension,
    add_servicer,
    messages,
)
from recsys_kd_kserve.metrics import Metrics
from recsys_kd_kserve.model import RankingModel, status_of
from recsys_kd_kserve.repository import Plane
from recsys_kd_kserve.rest import check_token
from recsys_kd_kserve.tensors import Asked, Given, Tensor

_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
}
Call = Callable[[Any, Any, Any], Awaitable[Any]]


def told(call: Call) -> Call:
    """Turn what a call raises into a gRPC status with its message."""

    @wraps(call)
    async def guarded(self: "Servicer", request: Any, context: Any) -> Any:
        try:
            if isinstance(request, Refused):
                raise request
            return await call(self, request, context)
        except Exception as error:  # noqa: BLE001 - anything is a status; a defect is INTERNAL
            status, text = status_of(error)
        self.metrics.refused("grpc", status)
        return await context.abort(_CODES.get(status, StatusCode.INTERNAL), text)

    return guarded


class Servicer(InferenceServicer):  # type: ignore[misc]
    """The calls of the protocol."""

    def __init__(self, config: ServerConfig, plane: Plane, metrics: Metrics) -> None:
        super().__init__(plane, ModelRepositoryExtension(plane.model_registry))
        self.config, self.plane, self.metrics = config, plane, metrics
        self.working = 0

    @told
    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Score a request's candidates."""
        began = time.perf_counter()
        if self.working >= self.config.max_requests:
            raise Refused(429, f"{self.working} requests are in work, no more are taken at once; try again")
        self.working += 1
        try:
            model = self.plane.answering(request.model_name, request.model_version)
            if not isinstance(model, RankingModel):  # one that a host registered itself
                return await super().ModelInfer(request, context)
            raw = bool(request.raw_input_contents)
            return answered(request, await model.scored(asked(request)), raw=raw)
        finally:
            self.working -= 1
            self.metrics.took("grpc", time.perf_counter() - began)

    @told
    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say whether a model answers."""
        ready = self.plane.model(request.name, request.version).ready and not self.plane.draining
        return messages.ModelReadyResponse(ready=ready)

    @told
    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return a model's inputs, outputs and versions in memory."""
        return messages.ModelMetadataResponse(**await self.plane.model_metadata(request.name, request.version))

    @told
    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve a model of the registry, or look at the registry now."""
        check_token(self.config, _authorization(context))
        await in_thread(self.plane.model_registry.load, request.model_name)
        return messages.RepositoryModelLoadResponse(model_name=request.model_name, isLoaded=True)

    @told
    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve a model no more."""
        check_token(self.config, _authorization(context))
        self.plane.model(request.model_name)
        await in_thread(self.plane.model_registry.unload, request.model_name)
        return messages.RepositoryModelUnloadResponse(model_name=request.model_name, isUnloaded=True)


def asked(request: Any) -> Asked:
    """Return a message's request. Raises: Refused."""
    inputs, raw = request.inputs, request.raw_input_contents
    if raw and len(raw) != len(inputs):
        raise Refused(400, f"{len(inputs)} inputs have {len(raw)} raw contents; one for each is expected")
    if raw and any(i.HasField("contents") for i in inputs):
        raise Refused(400, "an input has 'contents' beside 'raw_input_contents'; one of the two is expected")
    if raw:
        tensors = [Tensor(i.name, i.datatype, tuple(i.shape), raw=r) for i, r in zip(inputs, raw, strict=True)]
    else:
        tensors = [Tensor(i.name, i.datatype, tuple(i.shape), _contents(i)) for i in inputs]
    return Asked(tensors, [o.name for o in request.outputs], request.model_version, request.id)


def _contents(given: Any) -> list[Any]:
    kinds = {"INT64": "int64", "INT32": "int", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes"}
    kind = kinds.get(given.datatype)
    return list(getattr(given.contents, f"{kind}_contents")) if kind else []


def answered(request: Any, given: Given, *, raw: bool) -> Any:
    """Return an answer's message; raw where the request was."""
    outputs, contents = [], []
    for name, values in given.outputs.items():
        output: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": values.shape}
        if raw:
            contents.append(values.tobytes())
        else:
            output["contents"] = {"fp32_contents": values.tolist()}
        outputs.append(output)
    return messages.ModelInferResponse(
        model_name=request.model_name,
        model_version=given.version,
        id=request.id,
        parameters={"digest": messages.InferParameter(string_param=given.digest)},
        outputs=outputs,
        raw_output_contents=contents,
    )


async def in_thread(call: Callable[[str], Any], name: str) -> None:
    """Load or unload beside the event loop."""
    await asyncio.to_thread(call, name)


def _authorization(context: Any) -> str | None:
    return next((m.value for m in context.invocation_metadata() or () if m.key == "authorization"), None)


class Tolerant:
    """A server as KServe's `add_servicer` sees it: to its methods, bytes that are no message are a `Refused`.

    gRPC itself would answer UNKNOWN with the name of a Python class, and write a traceback for each.
    """

    def __init__(self, server: aio.Server) -> None:
        self.server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Leave these out: they are the registered ones once more."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Register methods."""
        made = {n: h._replace(request_deserializer=_read(h.request_deserializer)) for n, h in handlers.items()}
        self.server.add_registered_method_handlers(service, made)


def _read(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return Refused(400, f"the {len(data)} bytes are not a message of the protocol (protobuf)")

    return read


def listen(config: ServerConfig, servicer: Servicer) -> tuple[aio.Server, int]:
    """Return a server that is not started yet, and its port. Raises: PortTaken."""
    server = aio.server(
        # Health and metadata stay answered while scoring is refused; beyond that gRPC itself refuses.
        maximum_concurrent_rpcs=2 * config.max_requests + 64,
        options=[
            ("grpc.max_receive_message_length", config.max_bytes),
            ("grpc.max_send_message_length", config.max_bytes),
            ("grpc.so_reuseport", 0),
        ],
    )
    add_servicer(servicer, Tolerant(server))
    address = f"{config.host}:{config.grpc_port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortTaken(f"{address}: {error}; stop what listens there, or give another --grpc-port") from None
    return server, int(port)
