"""The registry on Redis, for services and workers on many machines.

A model is one hash and one stream: `recsys_kd:{model}:state` holds every version, alias, night, claim and step as a
field, `recsys_kd:{model}:audit` what happened. A change watches the hash, decides, and writes both in one MULTI/EXEC,
so a publisher that was paused in between writes nothing; HGETALL is one command, so a reader sees whole states only.
Fields are set and never deleted: a publisher needs no right to delete (see README for the ACL).
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from redis import Redis
from redis.exceptions import RedisError, WatchError

from recsys_kd.registry.protocol import Event, Pointer, Publication, RegistryUnreachable, State, Step, Version
from recsys_kd.registry.ruled import RuledRegistry
from recsys_kd.registry.rules import Change

T = TypeVar("T")
PREFIX = "recsys_kd"
_TIMEOUT_SECONDS = 5.0
_TRIES = 100


def masked(url: str) -> str:
    """Return a URL without its password, for messages."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{parts.netloc.rpartition('@')[2]}"))


class RedisRegistry(RuledRegistry):
    """A `Registry` in a Redis database. Raises: RegistryUnreachable where it does not answer.

    `rediss://` speaks TLS (`?ssl_ca_certs=...`); user and password are taken from the URL.
    """

    def __init__(self, url: str) -> None:
        self.url = masked(url)
        try:
            self.redis: Any = Redis.from_url(
                url, decode_responses=True, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS
            )
        except ValueError as error:
            raise RegistryUnreachable(f"{self.url}: {error}; give redis://host:port/db") from None

    @contextmanager
    def _reach(self) -> Iterator[Any]:
        try:
            yield self.redis
        except (RedisError, OSError) as error:
            raise RegistryUnreachable(f"{self.url}: {error}; check the server, the user's rights and the URL") from None

    def models(self) -> list[str]:
        """Return all models, by name."""
        with self._reach() as redis:
            return sorted(redis.smembers(f"{PREFIX}:models"))

    def state(self, model: str) -> State:
        """Return the whole of a model as of one moment."""
        with self._reach() as redis:
            return _parse(redis.hgetall(_key(model, "state")))

    def audit(self, model: str) -> list[Event]:
        """Return everything that happened to a model, oldest first."""
        with self._reach() as redis:
            return [Event(**json.loads(entry["event"])) for _, entry in redis.xrange(_key(model, "audit"))]

    def announce(self, model: str, service: str, digest: str, seconds: int) -> None:
        """Say that a service has an artifact loaded, good for some seconds."""
        with self._reach() as redis:
            redis.set(_key(model, f"service:{service}"), digest, ex=seconds)

    def serving(self, model: str) -> dict[str, str]:
        """Return what live services announced."""
        with self._reach() as redis:
            keys = sorted(redis.scan_iter(match=_key(model, "service:*"), count=1000))
            pairs = zip(keys, redis.mget(keys) if keys else [], strict=True)
            return {key.partition(":service:")[2]: digest for key, digest in pairs if digest is not None}

    def _change(self, model: str, decide: Callable[[State], tuple[Change, T]]) -> T:
        key = _key(model, "state")
        with self._reach() as redis, redis.pipeline() as pipe:
            for attempt in range(_TRIES):
                try:
                    pipe.watch(key)
                    change, result = decide(_parse(pipe.hgetall(key)))
                    fields = _fields(change)
                    pipe.multi()
                    if fields:
                        pipe.hset(key, mapping=fields)
                    if change.versions:
                        pipe.sadd(f"{PREFIX}:models", model)
                    if change.event is not None:
                        pipe.xadd(_key(model, "audit"), {"event": json.dumps(asdict(change.event))})
                    pipe.execute()
                except WatchError:
                    time.sleep(random.uniform(0, 0.002 * min(attempt + 1, 20)))  # others are at it: let them finish
                else:
                    return result
        raise RegistryUnreachable(f"{self.url}: {model} was changed by others {_TRIES} times in a row; try again")


def _key(model: str, what: str) -> str:
    return f"{PREFIX}:{{{model}}}:{what}"


def _fields(change: Change) -> dict[str, str]:
    """Return the hash fields that a change sets."""
    fields = {f"version:{v.number}": json.dumps(asdict(v)) for v in change.versions}
    fields |= {f"alias:{alias}": json.dumps(asdict(p)) for alias, p in change.aliases.items()}
    fields |= {f"night:{p.night}": json.dumps(asdict(p)) for p in change.nights}
    fields |= {f"token:{night}": str(token) for night, token in change.tokens.items()}
    fields |= {f"step:{s.epoch}": json.dumps(asdict(s)) for s in change.steps}
    return fields | {f"collected:{number}": str(int(gone)) for number, gone in change.collected.items()}


def _parse(fields: dict[str, str]) -> State:
    parts: dict[str, dict[str, str]] = {k: {} for k in ("version", "alias", "night", "token", "collected", "step")}
    for name, value in fields.items():
        kind, _, key = name.partition(":")
        parts.setdefault(kind, {})[key] = value  # kinds of later versions are left alone
    return State(
        {int(number): Version(**json.loads(text)) for number, text in parts["version"].items()},
        {alias: Pointer(**json.loads(text)) for alias, text in parts["alias"].items()},
        {night: Publication(**json.loads(text)) for night, text in parts["night"].items()},
        {night: int(token) for night, token in parts["token"].items()},
        frozenset(int(number) for number, gone in parts["collected"].items() if gone == "1"),
        {int(epoch): Step(**json.loads(text)) for epoch, text in parts["step"].items()},
    )
