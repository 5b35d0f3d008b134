"""Where every night's state is kept: one JSON value per night in Redis, changed by compare-and-set.

`recsys_kd_jobs:night:<run>` the state, `recsys_kd_jobs:nights` all runs, `recsys_kd_jobs:log:<run>` its last lines.
Losing all of it loses no night: what is wanted is on the desk, what is published in the registry.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, WatchError

from jobs.machine import Night, NotYours, is_ready, queue, run_id
from recsys_kd.errors import OutsideError
from recsys_kd.registry.redis import masked

PREFIX = "recsys_kd_jobs"
_TRIES, _LOG_LINES = 100, 500
_TIMEOUT_SECONDS = 5.0
_KNOWN = frozenset(f.name for f in fields(Night))


class BoardUnreachable(OutsideError):
    """The Redis that holds the nights' states does not answer."""


class Board:
    """All nights' states. Raises: BoardUnreachable."""

    def __init__(self, url: str) -> None:
        self.url = masked(url)
        self.redis: Any = Redis.from_url(
            url, decode_responses=True, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS
        )

    @contextmanager
    def _reach(self) -> Iterator[Any]:
        try:
            yield self.redis
        except (RedisError, OSError) as error:
            raise BoardUnreachable(f"{self.url}: {error}; nights go on when it answers again") from None

    def now(self) -> float:
        """Return the time by Redis's clock, so that workers' clocks do not matter."""
        with self._reach() as redis:
            seconds, micros = redis.time()
        return _seconds(seconds, micros)

    def get(self, run: str) -> Night | None:
        """Return a night, None where nobody wanted it yet."""
        with self._reach() as redis:
            return _parse(redis.get(f"{PREFIX}:night:{run}"))

    def all(self) -> list[Night]:
        """Return all nights, by model and date."""
        with self._reach() as redis:
            runs = sorted(redis.smembers(f"{PREFIX}:nights"))
            texts = redis.mget([f"{PREFIX}:night:{run}" for run in runs]) if runs else []
        return [night for text in texts if (night := _parse(text)) is not None]

    def want(self, model: str, night: str, recipe: str) -> Night:
        """Return a night's state, waiting if it is new."""
        run = run_id(model, night)
        now = self.now()
        fresh = Night(model, night, recipe, now, now)
        with self._reach() as redis:
            redis.sadd(f"{PREFIX}:nights", run)
            redis.set(f"{PREFIX}:night:{run}", json.dumps(asdict(fresh)), nx=True)
        return self.get(run) or fresh

    def change(self, run: str, step: Callable[[Night, float], Night]) -> Night:
        """Move a night by a pure step of `machine`; whatever the step raises moves nothing."""
        key = f"{PREFIX}:night:{run}"
        with self._reach() as redis, redis.pipeline() as pipe:
            for _ in range(_TRIES):
                pipe.watch(key)
                before = _parse(pipe.get(key))
                if before is None:
                    raise NotYours(f"{run} is unknown: Redis lost it, or nobody wanted it")
                seconds, micros = pipe.time()
                after = step(before, _seconds(seconds, micros))
                try:
                    pipe.multi()
                    pipe.set(key, json.dumps(asdict(after)))
                    pipe.execute()
                except WatchError:
                    continue
                return after
        raise BoardUnreachable(f"{self.url}: {run} was changed by others {_TRIES} times in a row")

    def queue_next(self, model: str, requeue: float) -> Night | None:
        """Queue the model's oldest night that is ready, unless another of its nights is under way.

        One at a time per model: the queue then holds one message per model, which makes it fair.
        """
        now = self.now()
        nights = [n for n in self.all() if n.model == model]
        busy = [n for n in nights if n.phase in ("queued", "running") and not is_ready(n, now, requeue)]
        for night in nights if not busy else ():
            if is_ready(night, now, requeue):
                try:
                    return self.change(night.run, lambda n, at: queue(n, at, requeue))
                except NotYours:
                    return None  # somebody else was faster, and sends it
        return None

    def say(self, run: str, **entry: str) -> None:
        """Add a line to a night's log."""
        with self._reach() as redis:
            redis.xadd(f"{PREFIX}:log:{run}", entry, maxlen=_LOG_LINES, approximate=False)

    def lines(self, run: str, after: str = "0-0") -> list[tuple[str, dict[str, str]]]:
        """Return a night's log lines after an id, oldest first."""
        with self._reach() as redis:
            found: list[tuple[str, dict[str, str]]] = redis.xrange(f"{PREFIX}:log:{run}", min=f"({after}")
            return found

    def forget_lines(self, runs: list[str]) -> None:
        """Remove the logs of nights long over: every night has one, and Redis holds all in memory."""
        with self._reach() as redis:
            if runs:
                redis.unlink(*(f"{PREFIX}:log:{run}" for run in runs))

    def forget(self, runs: list[str]) -> None:
        """Remove nights long published, with their logs: what they came to is in the registry."""
        self.forget_lines(runs)
        with self._reach() as redis:
            if runs:
                redis.srem(f"{PREFIX}:nights", *runs)
                redis.unlink(*(f"{PREFIX}:night:{run}" for run in runs))

    def count(self, **amounts: float) -> None:
        """Add to the counters that the metrics show."""
        with self._reach() as redis, redis.pipeline() as pipe:
            for name, amount in amounts.items():
                pipe.hincrbyfloat(f"{PREFIX}:counters", name, amount)
            pipe.execute()

    def counters(self) -> dict[str, float]:
        """Return the counters."""
        with self._reach() as redis:
            return {name: float(value) for name, value in redis.hgetall(f"{PREFIX}:counters").items()}


def _seconds(seconds: int, micros: int) -> float:
    return seconds + micros / 1e6


def _parse(text: str | None) -> Night | None:
    """Return a night; what a later version wrote beside it is left out."""
    if text is None:
        return None
    return Night(**{key: value for key, value in json.loads(text).items() if key in _KNOWN})
