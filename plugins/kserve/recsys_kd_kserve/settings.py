"""The YAML of `recsys-kd serve --config`: what is set once per host, and checked before anything is opened."""

import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from recsys_kd.runtime.plugins import ServingConfig
from recsys_kd.settings import BadRecipe, StrictConfig, explain
from recsys_kd_kserve.config import TOKEN, ServerConfig

Share = Annotated[float, Field(ge=0, le=1)]


class Settings(StrictConfig):
    """One server's settings; every key has a default."""

    state: Path = Path("serving")
    """This host's folder for the last known good version of each model."""
    host: str = "127.0.0.1"
    poll_seconds: float = Field(5.0, ge=0.05, le=3600)
    """Between looks at the registry."""
    canary: Share = 0.0
    """Share of users that the challenger answers, by a hash of the user id."""
    shadow: Share = 0.0
    """Share of requests that the challenger scores beside the champion, unseen."""
    shadow_log: Path | None = None
    """Folder for what the shadow found, as Parquet; needs `recsys-kd-kserve[shadow]`."""
    max_bytes: int = Field(16 << 20, ge=1024)
    max_candidates: int = Field(100_000, ge=1)
    max_requests: int = Field(64, ge=1)
    """In work at once over each protocol."""
    max_connections: int = Field(512, ge=1)
    """Over REST at once; never more than half of the process's descriptors."""
    read_seconds: float = Field(10.0, gt=0)
    """For a request's headers to arrive, and again for its body."""
    drain_seconds: float = Field(20.0, ge=0)
    """For requests in work when the server ends."""

    def server(
        self, models: tuple[str, ...], registry: str | None, store: Path | None, ports: tuple[int, int]
    ) -> ServerConfig:
        """Return a server's configuration; the token comes from the environment."""
        serving = ServingConfig(
            models[0], registry, store, self.state, self.poll_seconds, self.canary, self.shadow, self.shadow_log
        )
        names = ("host", "max_bytes", "max_candidates", "max_requests", "max_connections", "read_seconds")
        limits: dict[str, Any] = {name: getattr(self, name) for name in (*names, "drain_seconds")}
        return ServerConfig(models, serving, *ports, token=os.environ.get(TOKEN) or None, **limits)


def load_settings(path: Path | None) -> Settings:
    """Read the YAML, all defaults where there is none. Raises: BadRecipe naming every bad key with its value."""
    if path is None:
        return Settings()
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except ValidationError as error:
        raise BadRecipe(explain(error, str(path), Settings)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadRecipe(f"{path}: {' '.join(str(error).split())}; give a YAML file") from None
