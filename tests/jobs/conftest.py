import pytest

from jobs.board import Board
from jobs.config import JobsConfig, Limits
from tests.redis_server import RedisServer


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def board(redis_server):
    redis_server.client().flushall()
    return Board(redis_server.url(1))


@pytest.fixture
def config(board, redis_server, tmp_path):
    return JobsConfig(broker=redis_server.url(0), state=redis_server.url(1), desk=tmp_path / "desk")


@pytest.fixture
def on_redis(board, redis_server, tmp_path):
    """Return a configuration whose registry is on Redis, and which tries again at once."""
    return JobsConfig(
        state=redis_server.url(1), registry=redis_server.url(0), desk=tmp_path / "desk", limits=Limits(backoff=0)
    )
