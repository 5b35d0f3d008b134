"""A thin client: a request's fields and raw candidate ids in, probabilities and the version that gave them out.

`RestClient` needs httpx alone; `GrpcClient`, which is faster, kserve for its messages. Threads may share either. What
the server refuses as a bad request raises `BadRequest`, anything else `ServerRefused`.
"""

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.errors import OutsideError
from recsys_kd.runtime.ranker import Candidates
from recsys_kd.runtime.service import Answer
from recsys_kd.runtime.values import BadRequest, shown

_HEADER_LENGTH = "Inference-Header-Content-Length"


class ServerRefused(OutsideError):
    """The server did not answer, or not with scores; the message has its status."""


def tensor(name: str, value: Any) -> tuple[dict[str, Any], bytes]:
    """Return a tensor's description, and its data as the protocol's raw bytes. Raises: BadRequest."""
    values = value if isinstance(value, np.ndarray) else np.asarray(value, dtype=_kind(name, value))
    values = values.reshape(1) if values.ndim == 0 else values
    described: dict[str, Any] = {"name": name, "shape": list(values.shape)}
    if values.dtype.kind in "OUS":
        if not all(isinstance(v, str | bytes) for v in values.ravel().tolist()):
            raise BadRequest(f"field '{name}': {shown(value)} is neither all strings nor all integers of 64 bits")
        return described | {"datatype": "BYTES"}, b"".join(map(_counted, values.ravel().tolist()))
    if values.dtype.kind in "iu":
        return described | {"datatype": "INT64"}, values.astype("<i8").tobytes()
    if values.dtype.kind == "f":
        return described | {"datatype": "FP32"}, values.astype("<f4").tobytes()
    raise BadRequest(f"field '{name}': {shown(value)} is neither ids nor numbers")


def _kind(name: str, value: Any) -> Any:
    """Return the type of a Python value; numbers and strings in one list are refused, as NumPy would mix them."""
    first = value
    while isinstance(first, Sequence) and not isinstance(first, str | bytes):
        if not len(first):
            return np.int64
        if len({isinstance(v, str) for v in first}) > 1:
            raise BadRequest(f"field '{name}': strings beside other values; ids of a model are of one kind")
        first = first[0]
    if isinstance(first, str):
        return object
    if isinstance(first, int | np.integer) and abs(int(first)) >= 2**63:
        raise BadRequest(f"field '{name}': {shown(first)} does not fit in 64 bits; ids are int64")
    return None


def _counted(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(4, "little") + data


def tensors(
    request: Mapping[str, Any], candidates: Candidates, features: Mapping[str, Any] | None
) -> list[tuple[dict[str, Any], bytes]]:
    """Return all tensors of a request; fields that are None are left out."""
    given = {**request, **(features or {}), "item_id": candidates}
    return [tensor(name, value) for name, value in given.items() if value is not None]


class _Closing:
    def close(self) -> None:
        """Close the connections."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class RestClient(_Closing):
    """Scores over REST; `url` is the server's, such as http://127.0.0.1:8080."""

    def __init__(self, url: str, model: str, seconds: float = 10.0) -> None:
        import httpx

        self.model, self.path = model, f"/v2/models/{model}"
        self.http = httpx.Client(base_url=url, timeout=seconds)

    def __enter__(self) -> "RestClient":
        return self

    def score(
        self, request: Mapping[str, Any], candidates: Candidates, features: Mapping[str, Any] | None = None
    ) -> Answer:
        """Return the candidates' probabilities, float32 [N]. Raises: BadRequest, ServerRefused."""
        made = tensors(request, candidates, features)
        inputs = [d | {"parameters": {"binary_data_size": len(raw)}} for d, raw in made]
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        body = b"".join([head, *(raw for _, raw in made)])
        response = self._send("POST", f"{self.path}/infer", content=body, headers={_HEADER_LENGTH: str(len(head))})
        cut = int(response.headers[_HEADER_LENGTH])
        found = json.loads(response.content[:cut])
        scores: NDArray[np.float32] = np.frombuffer(response.content[cut:], dtype="<f4")
        return Answer(scores, int(found["model_version"]), found["parameters"]["digest"])

    def metadata(self) -> dict[str, Any]:
        """Return the model's inputs, outputs and versions."""
        found: dict[str, Any] = self._send("GET", self.path).json()
        return found

    def _send(self, method: str, path: str, **options: Any) -> Any:
        import httpx

        try:
            response = self.http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServerRefused(f"{self.http.base_url}: {error or type(error).__name__}; is it running?") from None
        if response.status_code == 400:
            raise BadRequest(response.json()["error"])
        if response.is_error:
            raise ServerRefused(f"{self.http.base_url}: status {response.status_code}: {response.text[:500]}")
        return response

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


class GrpcClient(_Closing):
    """Scores over gRPC with raw tensors; `address` is the server's, such as 127.0.0.1:8081."""

    def __init__(self, address: str, model: str, seconds: float = 10.0) -> None:
        import grpc

        from recsys_kd_kserve.kserve_api import messages

        self.address, self.model, self.seconds, self.messages = address, model, seconds, messages
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        self._infer = self.channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )

    def __enter__(self) -> "GrpcClient":
        return self

    def score(
        self, request: Mapping[str, Any], candidates: Candidates, features: Mapping[str, Any] | None = None
    ) -> Answer:
        """Return the candidates' probabilities, float32 [N]. Raises: BadRequest, ServerRefused."""
        import grpc

        made = tensors(request, candidates, features)
        message = self.messages.ModelInferRequest(
            model_name=self.model, inputs=[d for d, _ in made], raw_input_contents=[raw for _, raw in made]
        )
        try:
            found = self._infer(message, timeout=self.seconds)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                raise BadRequest(error.details()) from None
            raise ServerRefused(f"{self.address}: {error.code().name}: {error.details()}") from None
        scores: NDArray[np.float32] = np.frombuffer(found.raw_output_contents[0], dtype="<f4")
        return Answer(scores, int(found.model_version), found.parameters["digest"].string_param)

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()
