"""`recsys-kd study toy`: the chain on two moons, beside the one of the original article."""

import json
from typing import Annotated

import typer

from recsys_kd.cli.display import progress


def toy(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from 0 on.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Distil, prune, recover and quantize on two moons; say what the article's own steps cost on the same students."""
    from recsys_kd.flow.toy import toy as run_toy

    found = run_toy(seeds, progress())
    typer.echo(json.dumps(found.to_json()) if as_json else "\n".join(found.lines()))
