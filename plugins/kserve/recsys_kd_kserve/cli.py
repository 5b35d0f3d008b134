"""What the plugin adds to `recsys-kd`: `serve`. Found by entry point; importing it imports no kserve."""

import datetime as dt
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recsys_kd_kserve.server import Server

_REGISTRY = "RECSYS_KD_REGISTRY"


def extend(root: typer.Typer) -> None:
    """Add the command to `recsys-kd`."""
    root.command()(serve)


class JsonLines(logging.Formatter):
    """One JSON object per line; an event's own keys stand beside the time."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "logger": record.name, "process": record.process}
        text = record.getMessage()
        event = json.loads(text) if record.name == "recsys_kd.serving" and text.startswith("{") else {"message": text}
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        return json.dumps(line | event, ensure_ascii=False)


def _log() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("recsys_kd").setLevel(logging.INFO)


def serve(
    model: Annotated[list[str], typer.Option(help="Model of the registry; several times for several.")],
    registry: Annotated[
        str | None, typer.Option(envvar=_REGISTRY, help="redis://... or an SQLite path; the store's where absent.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where this host sees the artifacts; the registry's own paths where absent.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="REST port; 0: any free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="gRPC port; 0: any free one.")] = 8081,
    config: Annotated[
        Path | None, typer.Option(help="YAML with the rest: limits, canary, shadow, folders; see README.")
    ] = None,
) -> None:
    """Serve the registry's champion over the Open Inference Protocol v2: REST, gRPC, and Prometheus on /metrics.

    New champions are taken over while it runs. Load and unload need RECSYS_KD_TOKEN to be set.
    """
    from recsys_kd_kserve.settings import load_settings

    _log()
    made = load_settings(config).server(tuple(model), registry, store, (port, grpc_port))
    from recsys_kd_kserve.server import Server

    Server(made).run(_started)


def _started(server: "Server") -> None:
    where = {"rest": f"http://{server.config.host}:{server.port}", "grpc": f"{server.config.host}:{server.grpc_port}"}
    logging.getLogger("recsys_kd.serving").info(json.dumps({"event": "listening", **where}))
