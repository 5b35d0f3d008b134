import pytest

from jobs.board import Board
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
