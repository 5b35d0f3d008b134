import pytest

from recsys_kd.registry.where import open_registry
from tests.redis_server import RedisServer


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def address(request, tmp_path):
    """Return what names an empty registry: a path, or a URL of a real Redis."""
    if request.param == "sqlite":
        return str(tmp_path / "store" / "registry.sqlite")
    server = request.getfixturevalue("redis_server")
    server.client().flushall()
    return server.url()


@pytest.fixture
def registry(address, tmp_path):
    return open_registry(address, tmp_path)
