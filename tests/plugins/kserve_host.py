"""What the tests of the KServe plugin share: its configuration, a request as JSON, and calls."""

import socket

from recsys_kd.runtime.plugins import ServingConfig
from recsys_kd.runtime.ranker import Ranker
from recsys_kd_kserve.config import ServerConfig
from recsys_kd_kserve.kserve_api import messages
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST

TOKEN = "a-token-of-the-test"
LISTED = {
    "inputs": [
        {"name": "item_id", "datatype": "INT64", "shape": [4], "data": CANDIDATES},
        {"name": "user_id", "datatype": "INT64", "shape": [1], "data": [3]},
        {"name": "device", "datatype": "BYTES", "shape": [1], "data": ["phone"]},
        {"name": "history", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        {"name": "age", "datatype": "FP32", "shape": [1], "data": [30.0]},
        {"name": "mood", "datatype": "FP32", "shape": [4], "data": REQUEST["mood"]},
        {"name": "position", "datatype": "INT64", "shape": [4], "data": FEATURES["position"]},
        {"name": "seller", "datatype": "INT64", "shape": [4], "data": FEATURES["seller"]},
        {"name": "affinity", "datatype": "FP32", "shape": [4], "data": FEATURES["affinity"]},
        {"name": "image", "datatype": "FP32", "shape": [4, 3], "data": FEATURES["image"]},
    ]
}


def configured(world, **limits):
    serving = ServingConfig("shop", str(world.store / "registry.sqlite"), pointers=world.pointers, poll_seconds=3600.0)
    return ServerConfig(("shop",), serving, 0, 0, token=TOKEN, **limits)


def expected(world, version, **options):
    return Ranker.open(world.paths[version]).score(REQUEST, CANDIDATES, FEATURES, **options)


def call(rpc, method, request, **metadata):
    """Call a method of the protocol."""
    kind, answer = getattr(messages, f"{method}Request"), getattr(messages, f"{method}Response")
    path = f"/inference.GRPCInferenceService/{method}"
    made = rpc.channel.unary_unary(path, kind.SerializeToString, answer.FromString)
    return made(kind(**request), timeout=30, metadata=list(metadata.items()))


def half_sent(port, size=1000):
    """Begin a request, and do not finish it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /v2/models/shop/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n"
    connection.sendall(head.encode() + b'{"inputs"')
    return connection
