"""The Redis servers of this machine that a configuration names and nobody runs: `up` starts them.

What they are told is in a file that only its owner reads, not in arguments, which `ps` shows: it may hold the hash of a
password.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.config import JobsConfig
from recsys_kd.errors import OutsideError
from recsys_kd.registry.redis import masked

_HOSTS = ("127.0.0.1", "localhost")
_PORT = 6379
_LOOK_SECONDS = 0.05


class RedisMissing(OutsideError):
    """A Redis server can't be started."""


def listens(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def missing(config: JobsConfig) -> dict[str, list[str]]:
    """Return the servers that are to be started: name -> the URLs that mean it."""
    urls = {"redis": config.broker, "state": config.state, "registry": config.registry or ""}
    names: dict[int, str] = {}
    found: dict[str, list[str]] = {}
    for name, url in urls.items():
        parts = urlsplit(url)
        if parts.scheme == "redis" and parts.hostname in _HOSTS and not listens(port_of(url)):
            found.setdefault(names.setdefault(port_of(url), name), []).append(url)
    return found


def port_of(url: str) -> int:
    """Return the port that a URL means."""
    return urlsplit(url).port or _PORT


def command(name: str, urls: list[str], folder: Path) -> list[str]:
    """Write what a server is told, and return what starts it with its data in `folder`/`name`. Raises: RedisMissing."""
    server = shutil.which("redis-server")
    if server is None:
        raise RedisMissing("redis-server is not installed; install it from the system's packages, or start one")
    data = folder / name
    data.mkdir(parents=True, exist_ok=True)
    path = data / "redis.conf"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(_told(name, urls, data)) + "\n")
    return [server, str(path)]


def _told(name: str, urls: list[str], data: Path) -> list[str]:
    place = [f"port {port_of(urls[0])}", "bind 127.0.0.1", f"dir {json.dumps(str(data), ensure_ascii=False)}"]
    keeps = ["appendonly yes", "maxmemory-policy noeviction", 'save ""']
    always = ["appendfsync always"] if name == "registry" else []
    return [*place, *keeps, *always, *_users(urls)]


def _users(urls: list[str]) -> list[str]:
    """Return the users that the URLs log in as; without any password, Redis's own default."""
    logins: dict[str, set[str]] = {}
    for url in urls:
        parts = urlsplit(url)
        word = (
            "nopass" if parts.password is None else f"#{hashlib.sha256(unquote(parts.password).encode()).hexdigest()}"
        )
        logins.setdefault(unquote(parts.username or "") or "default", set()).add(word)
    if logins == {"default": {"nopass"}}:
        return []
    off = [] if "default" in logins else ["user default off"]
    return off + [f"user {user} on {' '.join(sorted(words))} ~* &* +@all" for user, words in sorted(logins.items())]


def wait(
    urls: Mapping[str, str], running: Mapping[str, "subprocess.Popen[bytes]"], folder: Path, stopping: threading.Event
) -> None:
    """Wait until every server that was started has read its file and answers; name -> URL. Raises: RedisMissing."""
    for name, url in urls.items():
        while not _answers(url) and not stopping.wait(_LOOK_SECONDS):  # a long file takes its time
            process = running.get(name)
            if process is None or process.poll() is not None:
                raise RedisMissing(f"redis-server on port {port_of(url)} ended at its start; see {folder / name}.log")


def _answers(url: str) -> bool:
    """Return whether a server answers, if only to ask for a password. Raises: RedisMissing where it says no."""
    try:
        with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            client.ping()
    except (AuthenticationError, NoPermissionError):
        return True
    except (RedisConnectionError, RedisTimeoutError, OSError):
        return False  # not yet, or it reads its file
    except RedisError as error:  # it has no database of that number, say
        raise RedisMissing(f"{masked(url)}: {error}; mend the address in the jobs configuration") from None
    return True
