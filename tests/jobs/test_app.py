"""The broker by TLS: the server is who it says it is, or no message is sent."""

import subprocess

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from jobs.app import configure, verifying
from jobs.config import JobsConfig
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Return a server that takes TLS and a password, and its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    server = RedisServer(folder, *tls, "--requirepass", "secret", scheme="rediss")
    yield server, certificate
    server.stop()


def send(url):
    app = Celery("test", set_as_current=False)
    configure(app, JobsConfig(broker=url))
    app.send_task("recsys_kd.tidy", ["shop@2026-01-05"], retry=False)
    with app.connection_for_read() as connection:
        return connection.default_channel.client.llen("light")


def test_a_broker_with_password_and_a_known_certificate_is_used(guarded):
    server, certificate = guarded
    assert send(server.url(login=":secret@", query=f"?ssl_ca_certs={certificate}")) == 1


def test_a_broker_with_an_unknown_certificate_is_refused(guarded):
    with pytest.raises(OperationalError, match="certificate verify failed"):
        send(guarded[0].url(login=":secret@"))


def test_an_address_that_says_what_to_check_stays_as_it_is():
    for url in ("redis://h/0", "rediss://h/0?ssl_cert_reqs=none"):
        assert verifying(url) == url
    assert verifying("rediss://:p@h/0?ssl_ca_certs=c") == "rediss://:p@h/0?ssl_ca_certs=c&ssl_cert_reqs=required"
