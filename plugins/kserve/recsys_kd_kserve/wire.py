"""Requests and answers of the Open Inference Protocol as JSON, with binary data behind it where that is asked for."""

from typing import Any

import orjson
from fastapi import Response

from recsys_kd_kserve.config import VERSION_HEADER, Refused
from recsys_kd_kserve.tensors import Asked, Given, Tensor

HEADER_LENGTH = "inference-header-content-length"
_SHAPE = '{"inputs": [{"name": ..., "datatype": ..., "shape": [...], "data": [...]}]}'


def json_response(content: Any, status: int = 200, version: str | None = None) -> Response:
    """Return JSON, arrays included."""
    headers = {VERSION_HEADER: version} if version else {}
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def loads(body: bytes) -> Any:
    """Return what JSON holds. Raises: Refused."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}; expected is {_SHAPE}") from None


def parse(body: bytes, header_length: str | None) -> Asked:
    """Return the request that a body holds; `header_length` says where its JSON ends. Raises: Refused."""
    if header_length is None:
        return _parsed(loads(body), b"")
    # Python refuses to read numbers of thousands of digits, with an error of its own.
    digits = len(header_length) <= 18 and header_length.isascii() and header_length.isdigit()
    if not digits or int(header_length) > len(body):
        text = f"'{header_length[:20]}' is not the length of a JSON header within {len(body)} bytes"
        raise Refused(400, f"{HEADER_LENGTH}: {text}")
    return _parsed(loads(body[: int(header_length)]), body[int(header_length) :])


def _parsed(found: Any, tail: bytes) -> Asked:
    """Return a request from JSON, and the binary data behind it. Raises: Refused."""
    inputs = found.get("inputs") if isinstance(found, dict) else None
    outputs = found.get("outputs") or [] if isinstance(found, dict) else None
    if not isinstance(inputs, list) or not inputs or not isinstance(outputs, list):
        raise Refused(400, f"'inputs' is not a list of tensors; expected is {_SHAPE}")
    tensors, at = [], 0
    for given in inputs:
        tensor, size = _tensor(given, tail, at)
        tensors.append(tensor)
        at += size
    if at != len(tail):
        raise Refused(400, f"{len(tail)} bytes follow the JSON header, 'binary_data_size' adds up to {at}")
    if not all(isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs):
        raise Refused(400, "'outputs' is not a list of {\"name\": ...}")
    parameters = found.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refused(400, "'parameters' is not a mapping")
    binary = parameters.get("binary_data_output") is True
    return Asked(tensors, [o["name"] for o in outputs], id=str(found.get("id") or ""), binary=binary)


def _tensor(given: Any, tail: bytes, at: int) -> tuple[Tensor, int]:
    """Return one input, and how many bytes of binary data it takes."""
    ok = isinstance(given, dict) and isinstance(given.get("name"), str) and isinstance(given.get("datatype"), str)
    shape = given.get("shape") if ok else None
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise Refused(400, f"an input lacks 'name', 'datatype' or 'shape' [numbers]: {str(given)[:200]}")
    name, datatype, parameters = given["name"], given["datatype"], given.get("parameters")
    if "data" in given:
        return Tensor(name, datatype, tuple(shape), given["data"]), 0
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if type(size) is not int or not 0 <= size <= len(tail) - at:
        raise Refused(400, f"input '{name}' has neither 'data' nor binary data within the body")
    return Tensor(name, datatype, tuple(shape), raw=tail[at : at + size]), size


def encoded(model: str, asked: Asked, given: Given) -> Response:
    """Return an answer as JSON, or with binary data behind it where that was asked for."""
    outputs = []
    for name, values in given.outputs.items():
        data = {"parameters": {"binary_data_size": values.nbytes}} if asked.binary else {"data": values}
        outputs.append({"name": name, "shape": list(values.shape), "datatype": "FP32"} | data)
    content = {
        "id": asked.id,
        "model_name": model,
        "model_version": given.version,
        "parameters": {"digest": given.digest},
        "outputs": outputs,
    }
    if not asked.binary:
        return json_response(content, version=given.version)
    head = orjson.dumps(content)
    headers = {VERSION_HEADER: given.version, HEADER_LENGTH: str(len(head))}
    body = b"".join([head, *(values.tobytes() for values in given.outputs.values())])
    return Response(body, 200, headers, media_type="application/octet-stream")
