"""The process of `recsys-kd serve`, and what it is told while it runs."""

import http.client
import json
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from jobs.child import die_with_parent
from jobs.config import JobsConfig
from jobs.live import Live
from recsys_kd.registry import where
from recsys_kd.settings import BadRecipe, load_yaml

TOKEN = "RECSYS_KD_TOKEN"
_ASK_SECONDS, _LOAD_SECONDS = 5.0, 600.0
_NO_ANSWER = (OSError, http.client.HTTPException)
"""Nobody listens, or somebody who speaks something else."""


class Serving:
    """A server of some models; it dies with this process."""

    def __init__(self, config: JobsConfig, folder: Path, live: Live) -> None:
        self.registry, self.models = live.registry, list(live.models)
        self.token = os.environ.get(TOKEN) or secrets.token_urlsafe(32)
        self.address = f"http://{_host(config)}:{config.server_port}"
        self.process = subprocess.Popen(
            command(config, live.models), env=environment(live.registry, self.token), cwd=folder,
            stdin=subprocess.DEVNULL, preexec_fn=partial(die_with_parent, os.getpid()),
        )  # fmt: skip

    def answers(self) -> bool:
        """Return whether it is up."""
        try:
            with urllib.request.urlopen(f"{self.address}/v2/health/live", timeout=_ASK_SECONDS) as answer:
                return bool(answer.status == 200)
        except _NO_ANSWER:
            return False

    def load(self, model: str) -> str:
        """Let it serve one more model; return why it does not, if so."""
        request = urllib.request.Request(
            f"{self.address}/v2/repository/models/{model}/load",
            method="POST",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_LOAD_SECONDS):
                self.models.append(model)
        except urllib.error.HTTPError as error:
            return _reason(error)
        except _NO_ANSWER as error:
            return str(error)
        return ""


def command(config: JobsConfig, models: tuple[str, ...]) -> list[str]:
    """Return what serves; registry and token, which are secrets, are for the environment: `ps` shows arguments."""
    named = [argument for model in models for argument in ("--model", model)]
    ports = ["--port", str(config.server_port), "--grpc-port", str(config.server_grpc_port)]
    more = ["--config", str(config.server_config)] if config.server_config else []
    return [sys.executable, "-m", "recsys_kd", "serve", *named, *ports, *more]


def environment(registry: str, token: str) -> dict[str, str]:
    """Return this process's environment with the server's secrets."""
    return {**os.environ, where.VARIABLE: registry, TOKEN: token}


def _host(config: JobsConfig) -> str:
    """Return where the server listens, by its own configuration."""
    if config.server_config is None:
        return "127.0.0.1"
    try:
        told = load_yaml(config.server_config, "a server's configuration", BadRecipe) or {}
    except BadRecipe:
        return "127.0.0.1"  # the server itself says what is wrong with it
    host = str(told.get("host", "127.0.0.1"))
    return "127.0.0.1" if host == "0.0.0.0" else host


def _reason(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {text[:200]}"
