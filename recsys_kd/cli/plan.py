"""`recsys-kd plan`: which artifact keeps limits of bytes, microseconds and loss."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys_kd.cli.display import named, progress


def plan(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.")],
    bytes_: Annotated[str | None, typer.Option("--bytes", help="At most so large, e.g. 20MB.")] = None,
    p50_us: Annotated[float | None, typer.Option(help="At most so many us for 1,000 candidates.", min=0.1)] = None,
    max_loss: Annotated[float | None, typer.Option(help="AUC it may lose to the float student.", min=1e-6)] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw size, quality and latency into this SVG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Train the student (or reuse the night's) and choose bytes, fold, rows and bits by measurements on validation."""
    from recsys_kd.compress.plan import parse_bytes
    from recsys_kd.evaluate.writing import write_whole
    from recsys_kd.flow.checks import check, check_log
    from recsys_kd.flow.outputs import check_ending, check_outputs, inputs_of
    from recsys_kd.settings import load_recipe

    check_ending("--picture", picture, ".svg")
    loaded, most = load_recipe(recipe), None if bytes_ is None else parse_bytes(bytes_, "--bytes")
    with named(recipe):
        check(loaded)  # before torch is imported
    check_log(loaded)
    check_outputs({"--picture": picture}, inputs_of(loaded.data.path, recipe, loaded.store, loaded.registry))
    from recsys_kd.flow.options import Wanted
    from recsys_kd.flow.planning import plan as make_plan

    found = make_plan(loaded, Wanted(most, p50_us, max_loss), progress())
    if picture:
        write_whole(picture, found.picture())
    typer.echo(json.dumps(found.to_json()) if as_json else "\n".join(found.lines()))


def predicted_line(plan: Mapping[str, Any], size: int, logloss: Mapping[str, float]) -> str:
    """Return what a plan predicted beside what came of it; `logloss` of every stage, nats per test row."""
    pruned, served = (logloss[stage] - logloss["student"] for stage in ("pruned", "served"))
    return (
        f"plan      {plan['predicted_bytes']:,} bytes predicted, {size:,} on disk; {plan['predicted_loss']:+.5f} nats "
        f"predicted, {pruned:+.5f} after pruning, {served:+.5f} as served, recovered and quantized"
    )
