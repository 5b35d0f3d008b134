"""`recsys-kd registry`: what is registered, what is live, going back, and keeping the store small.

Exit codes as everywhere; every command takes `--registry` (a Redis URL or an SQLite path; RECSYS_KD_REGISTRY where
absent, then the file in the store).
"""

import getpass
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys_kd.registry import compare, where
from recsys_kd.registry.protocol import Registry

app = typer.Typer(no_args_is_help=True, help="Versions, aliases, rollback and the audit log.")
Store = Annotated[Path, typer.Option(help="Artifact store; its registry.sqlite is the registry unless told otherwise.")]
Where = Annotated[
    str | None, typer.Option("--registry", envvar=where.VARIABLE, help="redis://... or the path of an SQLite file.")
]
Model = Annotated[str, typer.Argument(help="Model name, as in its recipe.")]
Number = Annotated[int, typer.Argument(help="Version number.")]
Why = Annotated[str, typer.Option(help="Reason, for the audit log.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
STORE = Path("store")


def _open(store: Path, registry: str | None) -> Registry:
    return where.open_registry(registry, store, create=False)


def _print(rows: list[dict[str, Any]], as_json: bool, columns: tuple[str, ...]) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo("\t".join(str(row[c]) for c in columns))


@app.command("list")
def list_(store: Store = STORE, registry: Where = None, as_json: Json = False) -> None:
    """List every model's versions and what is live."""
    opened, rows = _open(store, registry), []
    for model in opened.models():
        state = opened.state(model)
        for number, v in sorted(state.versions.items()):
            names = [alias for alias, p in sorted(state.aliases.items()) if p.number == number]
            names += ["collected"] if number in state.collected else []
            rows.append(
                {"model": model, "version": number, "alias": ",".join(names), "digest": v.digest, "created": v.created}
            )
    _print(rows, as_json, ("model", "version", "alias", "digest", "created"))


@app.command()
def show(model: Model, version: Number, store: Store = STORE, registry: Where = None, as_json: Json = False) -> None:
    """Show one version with its lineage."""
    found = asdict(_open(store, registry).version(model, version))
    typer.echo(json.dumps(found, indent=None if as_json else 2))


@app.command()
def diff(
    model: Model, old: Number, new: Number, store: Store = STORE, registry: Where = None, as_json: Json = False
) -> None:
    """Show what differs between two versions: data, recipe, teacher, plan, parents."""
    opened = _open(store, registry)
    found = compare.differences(opened.version(model, old), opened.version(model, new))
    rows = [{"key": key, "old": a, "new": b} for key, (a, b) in found.items()]
    _print(rows, as_json, ("key", "old", "new"))


@app.command()
def nights(model: Model, store: Store = STORE, registry: Where = None, as_json: Json = False) -> None:
    """List a model's published nights: live, late (a newer one was live already) or held back by the gate."""
    found = _open(store, registry).state(model).nights
    rows = [asdict(found[night]) for night in sorted(found)]
    _print(rows, as_json, ("night", "outcome", "number", "epoch", "at"))


@app.command()
def audit(model: Model, store: Store = STORE, registry: Where = None, as_json: Json = False) -> None:
    """Print everything that happened to a model."""
    rows = [asdict(e) for e in _open(store, registry).audit(model)]
    _print(rows, as_json, ("at", "action", "number", "epoch", "who", "why"))


@app.command()
def challenge(
    model: Model, version: Number, why: Why, store: Store = STORE, registry: Where = None, as_json: Json = False
) -> None:
    """Let `challenger` name a version."""
    from recsys_kd.registry import store as stores

    opened = _open(store, registry)
    pointer = opened.name(model, "challenger", version, getpass.getuser(), why)
    stores.copy_beside(opened, store, model)
    _print([asdict(pointer)], as_json, ("alias", "number", "digest", "epoch"))


@app.command()
def rollback(
    model: Model,
    why: Why,
    to: Annotated[int | None, typer.Option(help="Version to go to: any that was champion.")] = None,
    store: Store = STORE,
    registry: Where = None,
    as_json: Json = False,
) -> None:
    """Make an earlier champion live again, after checking that it loads: the one before, next time one further back.

    What was rolled back from is passed over; `--to` names it, or any other champion, where it is wanted after all.
    """
    from recsys_kd.registry import store as stores
    from recsys_kd.runtime.versions import load

    opened = _open(store, registry)
    pointer = opened.rollback(model, lambda path: load(model, 0, path.name, path), getpass.getuser(), why, to)
    stores.copy_beside(opened, store, model)
    _print([asdict(pointer)], as_json, ("alias", "number", "digest", "epoch"))


@app.command()
def verify(model: Model, version: Number, store: Store = STORE, registry: Where = None, as_json: Json = False) -> None:
    """Open a version as a service would: every check, golden queries included."""
    from recsys_kd.runtime.versions import load

    found = _open(store, registry).version(model, version)
    load(model, version, found.digest, Path(found.path))
    row = {"model": model, "version": version, "digest": found.digest, "state": "sound"}
    _print([row], as_json, ("state", "digest"))


@app.command()
def gc(
    model: Model,
    keep: Annotated[int, typer.Option(min=0, help="Newest versions to keep.")] = 14,
    hours: Annotated[float, typer.Option(min=0, help="Keep what is younger than this.")] = 24.0,
    store: Store = STORE,
    registry: Where = None,
    as_json: Json = False,
) -> None:
    """Remove old artifacts; never one that an alias, a live service or the next rollback needs."""
    from recsys_kd.registry import store as stores

    found = stores.collect(_open(store, registry), store, model, keep, hours * 3600, getpass.getuser())
    row = {"removed": len(found.removed), "bytes": found.bytes, "in_use": len(found.in_use)}
    if as_json:
        typer.echo(json.dumps(row))
    else:
        typer.echo(f"{row['removed']} removed, {found.bytes:,} bytes freed, {row['in_use']} old ones are in use")


@app.command()
def rebuild(model: Model, store: Store = STORE, registry: Where = None, as_json: Json = False) -> None:
    """Restore a model's lost registry from the artifact store."""
    from recsys_kd.registry import store as stores

    found = stores.rebuild(where.open_registry(registry, store), store, model, getpass.getuser())
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    champion = found.champion[:12] if found.champion else "none: promote one by running its night"
    typer.echo(f"{model}: {found.versions} versions, {found.nights} nights, champion {champion}")
    if found.versions:
        typer.echo(
            f"services that have seen a later champion serve it until the next promotion or rollback, which is epoch "
            f"{found.next_epoch}; to let one follow this registry at once, remove its last known good version (the "
            f"file {model}.json in its `state` folder) and restart it"
        )
    for line in found.refused:
        typer.echo(f"refused: {line}")
