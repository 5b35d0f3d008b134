"""`recsys-kd registry`: what is registered, what is live, and going back."""

import getpass
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys_kd.registry.sqlite import SqliteRegistry

app = typer.Typer(no_args_is_help=True, help="Versions, aliases, rollback and the audit log.")
Store = Annotated[Path, typer.Option(help="Artifact store that holds registry.sqlite.")]
Model = Annotated[str, typer.Argument(help="Model name, as in its recipe.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def _open(store: Path) -> SqliteRegistry:
    return SqliteRegistry(store / "registry.sqlite")


def _print(rows: list[dict[str, Any]], as_json: bool, columns: tuple[str, ...]) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo("\t".join(str(row[c]) for c in columns))


@app.command("list")
def list_(store: Store = Path("store"), as_json: Json = False) -> None:
    """List every model's versions and what is live."""
    registry, rows = _open(store), []
    for model in registry.models():
        names = {a: p.number for a in ("champion", "previous") if (p := registry.pointer(model, a))}
        for v in registry.versions(model):
            live = ",".join(a for a, number in names.items() if number == v.number)
            rows.append({"model": model, "version": v.number, "alias": live, "digest": v.digest, "created": v.created})
    _print(rows, as_json, ("model", "version", "alias", "digest", "created"))


@app.command()
def show(model: Model, version: int, store: Store = Path("store"), as_json: Json = False) -> None:
    """Show one version with its lineage."""
    found = asdict(_open(store).version(model, version))
    typer.echo(json.dumps(found, indent=None if as_json else 2))


@app.command()
def audit(model: Model, store: Store = Path("store"), as_json: Json = False) -> None:
    """Print everything that happened to a model."""
    rows = [asdict(e) for e in _open(store).audit(model)]
    _print(rows, as_json, ("at", "action", "number", "epoch", "who", "why"))


@app.command()
def rollback(
    model: Model,
    why: Annotated[str, typer.Option(help="Reason, for the audit log.")],
    store: Store = Path("store"),
    as_json: Json = False,
) -> None:
    """Make the previous champion live again, after checking that it loads."""
    from recsys_kd.runtime.ranker import Ranker

    pointer = _open(store).rollback(model, Ranker.open, getpass.getuser(), why)
    _print([asdict(pointer)], as_json, ("alias", "number", "digest", "epoch"))


@app.command()
def verify(model: Model, version: int, store: Store = Path("store"), as_json: Json = False) -> None:
    """Open a version as a service would: every check, golden queries included."""
    from recsys_kd.runtime.ranker import Ranker

    found = _open(store).version(model, version)
    Ranker.open(found.path)
    _print(
        [{"model": model, "version": version, "digest": found.digest, "state": "sound"}], as_json, ("state", "digest")
    )
