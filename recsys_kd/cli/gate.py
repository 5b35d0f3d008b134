"""`recsys-kd gate`: may this artifact go live? Exit code 1 where the policy holds it back."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_kd.cli.display import progress
from recsys_kd.cli.registry import Where as Registry

if TYPE_CHECKING:
    from recsys_kd.flow.gate import Judged


def gate(  # noqa: PLR0913 - one per option
    policy: Annotated[Path, typer.Argument(help="YAML policy: metrics, margins, slices, bytes, latency.")],
    candidate: Annotated[str, typer.Option(help="Artifact folder, or model@version.")],
    log: Annotated[Path, typer.Option(help="Parquet log that no model has learned from.")],
    against: Annotated[list[str], typer.Option(help="NAME=REF: teacher=COLUMN, champion=model@champion, ...")],
    recipe: Annotated[Path | None, typer.Option(help="Recipe: columns and catalogue of the log.")] = None,
    store: Annotated[Path, typer.Option(help="Artifact store that holds the registry.")] = Path("store"),
    registry: Registry = None,
    since: Annotated[str | None, typer.Option(help="Judge by rows from this time on.")] = None,
    scores: Annotated[
        list[str] | None, typer.Option(help="What score columns hold: logit, probability, or COLUMN=logit.")
    ] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Write rows that can't be used to this file.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the verdict.")] = Path("verdict.json"),
    promote: Annotated[bool, typer.Option("--promote", help="Make it champion where it passes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Judge an artifact by a policy; the verdict is bound to the artifact's and the log's digest, and expires."""
    from recsys_kd.evaluate.judge import CANDIDATE
    from recsys_kd.evaluate.policy import load_policy
    from recsys_kd.flow.ab_scores import parse_scores
    from recsys_kd.flow.gate import gate as run_gate
    from recsys_kd.flow.gate import promote as make_champion
    from recsys_kd.flow.gate import write_verdict
    from recsys_kd.flow.outputs import check_outputs, inputs_of
    from recsys_kd.flow.publication import user_name

    pairs = [a.split("=", 1) for a in against]
    if any(len(p) != 2 for p in pairs):
        raise typer.BadParameter(f"--against is NAME=REF, got '{against[[len(p) for p in pairs].index(1)]}'")
    for name in dict(pairs):
        if name == CANDIDATE or [n for n, _ in pairs].count(name) > 1:
            why = "is what is judged" if name == CANDIDATE else "stands twice"
            raise typer.BadParameter(f"--against: '{name}' {why}; give every other model a name of its own")
    check_outputs({"--out": out, "--quarantine": quarantine}, inputs_of(log, recipe, store, registry, policy=policy))
    asked, kind = load_policy(policy), parse_scores(scores or ())
    judged = run_gate(asked, log, candidate, dict(pairs), recipe, store, since, kind, progress(), quarantine, registry)
    write_verdict(judged.verdict, out)
    pointer = make_champion(judged, store, user_name(), registry) if promote and judged.verdict.passed else None
    if as_json:
        more = {"champion": pointer and pointer.number, "warnings": judged.notes}
        typer.echo(json.dumps({**judged.verdict.to_json(), **more}))
    else:
        show(judged, out)
        if pointer is not None:
            typer.echo(f"champion  version {pointer.number}, epoch {pointer.epoch}")
    if not judged.verdict.passed:
        raise typer.Exit(1)


def show(judged: "Judged", out: Path) -> None:
    """Print every model in one table, every check, and the verdict."""
    from recsys_kd.evaluate.judge import CANDIDATE

    models = {CANDIDATE: next(iter(judged.comparisons.values())).metrics[CANDIDATE]}
    models |= {name: found.metrics[name] for name, found in judged.comparisons.items()}
    names = ("auc", "gauc", "logloss", "ece", "mrr")
    typer.echo("".join(f"{n:>12}" for n in ("", *names)))
    for model, metrics in models.items():
        typer.echo(f"{model:>12}" + "".join(f"{metrics[n].value:>12.5f}" for n in names))
    for check in judged.verdict.checks:
        mark = "info" if not check.gates else ("ok" if check.passed else "NO")
        typer.echo(f"{mark:>4}  {check.sentence}")
    for note in judged.notes:
        typer.echo(f"warning: {note}")
    verdict = judged.verdict
    for name, what in verdict.compared.items():
        typer.echo(f"{name} is {what}")
    typer.echo(f"by policy {verdict.policy}")
    typer.echo(f"artifact {verdict.artifact_digest[:12]} on log {verdict.measured_on[:12]}, until {verdict.expires}")
    typer.echo(f"{'passed the gate' if verdict.passed else 'held back by the gate'}; verdict in {out}")
