"""What the application is told: one YAML file that RECSYS_KD_JOBS names, or the defaults for trying it on one machine.

Three Redis databases, since each is lost or flushed for reasons of its own: `broker` (Celery's queues), `state` (what
every night is doing), and the registry's, where that is on Redis. The `desk` is a folder that all workers share: the
record of which nights are wanted, and one folder per night.
"""

import datetime as dt
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from recsys_kd.registry import where
from recsys_kd.registry.redis import masked
from recsys_kd.settings import BadRecipe, StrictConfig, explain, load_yaml

VARIABLE, BROKER_VARIABLE = "RECSYS_KD_JOBS", "RECSYS_KD_BROKER"
_DEFAULTS = "the defaults"
_SCHEMES = ("redis", "rediss")


class Scheduled(StrictConfig):
    """A model whose every night is wanted."""

    recipe: Path
    first: dt.date
    """The first night that is wanted; every later one follows once its day is over (UTC)."""


class Limits(StrictConfig):
    """Times in seconds. The defaults suit nights of hours; tests make them short."""

    attempts: int = Field(5, ge=1)
    """After so many the night is a dead letter."""
    stage: float = Field(6 * 3600, gt=0)
    """Longest run of a night's heavy stage."""
    visibility: float = Field(8 * 3600, gt=0)
    """Redis hands a task to somebody else when it is not acknowledged by then: above `stage`, or it runs twice."""
    grace: float = Field(60, gt=0)
    """What a stage may take to end after its limit; `stage` + `grace` must be below `visibility`."""
    lease: float = Field(60, gt=0)
    """A worker that has not said for so long that it is at work is taken to be gone."""
    requeue: float = Field(600, gt=0)
    """A night that is queued for so long is sent again, in case its message was lost."""
    backoff: float = Field(30, ge=0)
    """Before the second attempt; doubled for each later one, up to 120 times (an hour)."""
    patience: float = Field(12 * 3600, ge=0)
    """So long a night waits, in all, for what is away (its log, the store, the registry); then it is a dead letter."""
    reconcile: float = Field(30, gt=0)
    """Between two comparisons of wanted with published nights."""
    memory_bytes: int = Field(16 << 30, gt=0)
    """A heavy stage that holds more is stopped."""
    keep_versions: int = Field(14, ge=1)
    """Artifacts kept per model, besides those in use."""
    keep_seconds: float = Field(86_400, ge=0)
    """Artifacts and folders younger than this are never collected."""


class JobsConfig(StrictConfig):
    """The application's settings; see README, "Many models"."""

    broker: str = "redis://127.0.0.1:6379/0"
    state: str = "redis://127.0.0.1:6379/1"
    registry: str | None = None
    """`redis://...`, or an SQLite file's path; each recipe's own where absent."""
    desk: Path = Path("desk")
    models: tuple[Scheduled, ...] = ()
    limits: Limits = Limits()
    production: bool = False
    """Refuse what could lose work, instead of warning."""
    metrics_port: int | None = Field(None, ge=1, le=65535)
    """The light worker serves Prometheus metrics here, on 127.0.0.1."""

    flower_port: int = Field(5555, ge=1, le=65535)
    """`recsys-kd jobs up` shows Flower here, on 127.0.0.1, where it is installed."""

    server_port: int = Field(8080, ge=1, le=65535)
    """`recsys-kd jobs up` serves champions here over REST, where the KServe plugin is installed."""
    server_grpc_port: int = Field(8081, ge=1, le=65535)
    """And here over gRPC."""
    server_config: Path | None = None
    """What `recsys-kd serve` is given as `--config`."""

    @field_validator("broker", "state")
    @classmethod
    def _is_redis(cls, value: str, info: ValidationInfo) -> str:
        scheme = urlsplit(value).scheme
        if scheme == "unix" and info.field_name == "state":  # Celery knows no such broker
            return value
        if scheme not in _SCHEMES:
            raise ValueError(f"got '{masked(value)}'; give redis://host:port/database, or rediss:// for TLS")
        return _checked(value)

    @field_validator("registry")
    @classmethod
    def _keeps_a_registry(cls, value: str | None) -> str | None:
        try:
            where.check_address(value)
        except where.BadAddress as error:
            raise ValueError(str(error).removeprefix("registry: ")) from None
        return value if value is None or urlsplit(value).scheme not in _SCHEMES else _checked(value)

    @model_validator(mode="after")
    def _limits_fit(self) -> "JobsConfig":
        stage, grace, visibility = self.limits.stage, self.limits.grace, self.limits.visibility
        if stage + grace >= visibility:
            raise ValueError(
                f"limits.stage {stage:g} s + grace {grace:g} s is not below limits.visibility {visibility:g} s, so a "
                "long night would be started a second time while it runs; raise `visibility`"
            )
        return self


def _checked(url: str) -> str:
    """Return a Redis address whose port and database can be used: of a wrong database Redis's client takes 0."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"got '{masked(url)}'; its port is no number from 1 to 65535, give one, e.g. 6379")
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        raise ValueError(f"got '{masked(url)}'; its database '{database}' is no number, give one, e.g. /1")
    return url


def load(path: Path | None) -> JobsConfig:
    """Read a configuration; relative paths are taken from its folder. Raises: BadRecipe."""
    data: Any = {}
    base = Path.cwd()
    if path is not None:
        base = path.resolve().parent
        data = load_yaml(path, "a jobs configuration", BadRecipe) or {}
    try:
        config = JobsConfig.model_validate(data)
    except ValidationError as error:
        raise BadRecipe(explain(error, str(path or _DEFAULTS), JobsConfig)) from None
    models = tuple(m.model_copy(update={"recipe": base / m.recipe}) for m in config.models)
    server = config.server_config and base / config.server_config
    registry = config.registry
    if registry is not None and not where.is_url(registry):
        registry = str(base / registry)
    changes = {"desk": base / config.desk, "models": models, "server_config": server, "registry": registry}
    return config.model_copy(update=changes)


def from_environment() -> JobsConfig:
    """Return the configuration that RECSYS_KD_JOBS names; RECSYS_KD_BROKER and RECSYS_KD_REGISTRY win over it."""
    named = os.environ.get(VARIABLE)
    config = load(Path(named) if named else None)
    named_so = {"broker": BROKER_VARIABLE, "registry": where.VARIABLE}
    changes = {key: value for key, variable in named_so.items() if (value := os.environ.get(variable))}
    try:
        JobsConfig.model_validate(changes)
    except ValidationError as error:
        told = " and ".join(named_so[key] for key in changes)
        raise BadRecipe(explain(error, f"the environment's {told}", JobsConfig)) from None
    return config.model_copy(update=changes)


def is_configured() -> bool:
    """Return whether anybody told this machine about the application."""
    return VARIABLE in os.environ or BROKER_VARIABLE in os.environ
