"""A world with two versions, a KServe server on it, and a client of either protocol."""

import httpx
import pytest

from recsys_kd_kserve.client import GrpcClient
from recsys_kd_kserve.server import Server
from tests.plugins.kserve_host import configured
from tests.runtime.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("world"))
    made.paths = {1: made.publish(1), 2: made.publish(2)}
    return made


@pytest.fixture(scope="module")
def server(world):
    made = Server(configured(world, max_bytes=1 << 20, max_candidates=5000))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def rpc(server):
    with GrpcClient(f"127.0.0.1:{server.grpc_port}", "shop", 30) as client:
        yield client
