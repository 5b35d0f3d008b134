"""What is special to Redis: rights, passwords, TLS, a server that refuses or hangs."""

import signal
import subprocess
from pathlib import Path

import pytest

from recsys_kd.registry import redis as module
from recsys_kd.registry.protocol import RegistryUnreachable
from recsys_kd.registry.redis import RedisRegistry, masked
from tests.redis_server import RedisServer, free_port
from tests.registry.test_registry import add, night, verdict

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
ACL = ("user default on >admin ~* &* +@all", *README.partition("```acl\n")[2].partition("```")[0].splitlines())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acl")
    (folder / "users.acl").write_text("\n".join(ACL) + "\n")
    server = RedisServer(folder, "--aclfile", str(folder / "users.acl"))
    yield server
    server.stop()


def test_a_service_may_look_and_announce_itself_and_nothing_else(guarded):
    publisher = RedisRegistry(guarded.url(login="publisher:secret@"))
    night(publisher, "2026-01-05", "a")
    service = RedisRegistry(guarded.url(login="service:look@"))
    assert service.pointer("shop", "champion").digest == "a" and service.audit("shop")[-1].action == "publish"
    service.announce("shop", "web-1", "a", 60)
    assert publisher.serving("shop") == {"web-1": "a"}
    for attack in (
        lambda: add(service, "evil"),
        lambda: service.promote("shop", 1, verdict("a"), 1, "eve", ""),
        lambda: service.claim("shop", "2026-01-06"),
    ):
        with pytest.raises(RegistryUnreachable, match="check the server, the user's rights"):
            attack()


def test_a_publisher_can_not_shorten_the_audit_log(guarded):
    publisher = RedisRegistry(guarded.url(login="publisher:secret@"))
    add(publisher, "b")
    key = "recsys_kd:{shop}:audit"
    for command in (("XTRIM", key, "MAXLEN", "0"), ("DEL", key), ("XDEL", key, "0-1"), ("FLUSHALL",)):
        with pytest.raises(module.RedisError, match="no permissions"):
            publisher.redis.execute_command(*command)


def test_a_wrong_password_is_refused_and_never_printed(guarded):
    with pytest.raises(RegistryUnreachable, match="invalid username-password pair") as caught:
        RedisRegistry(guarded.url(login="service:guess@")).models()
    assert "guess" not in str(caught.value) and masked("redis://a:b@h:1/0") == "redis://a:***@h:1/0"


def test_tls_by_url(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    options = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    server = RedisServer(tmp_path, *options, scheme="rediss")
    try:
        registry = RedisRegistry(server.url(query=f"?ssl_ca_certs={certificate}"))
        assert add(registry, "a").number == 1
        with pytest.raises(RegistryUnreachable, match="certificate verify failed"):
            RedisRegistry(server.url()).models()
    finally:
        server.stop()


def test_a_server_that_is_down_or_hangs_is_named_in_time(tmp_path, monkeypatch):
    with pytest.raises(RegistryUnreachable, match="Connection refused"):
        RedisRegistry(f"redis://127.0.0.1:{free_port()}/0").models()
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", 0.3)
    server = RedisServer(tmp_path)
    server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(RegistryUnreachable, match="Timeout"):
            RedisRegistry(server.url()).models()
    finally:
        server.process.send_signal(signal.SIGCONT)
        server.stop()


def test_an_address_that_is_no_redis_url_is_refused():
    with pytest.raises(RegistryUnreachable, match="redis://host:port/db"):
        RedisRegistry("redis://127.0.0.1:port/0")
