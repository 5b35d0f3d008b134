"""The commands. Reports go to stdout (`--json`: exactly one JSON document), progress and messages to stderr."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import rich_utils
from typer.exceptions import TyperException

from recsys_kd.cli.ab import ab
from recsys_kd.cli.display import named, progress
from recsys_kd.cli.gate import gate
from recsys_kd.cli.plan import plan, predicted_line
from recsys_kd.cli.registry import app as registry_app
from recsys_kd.cli.simulate import Days, Items, Rows, Seed, Users, simulate
from recsys_kd.cli.study import app as study_app
from recsys_kd.errors import OutsideError, RecsysKdError
from recsys_kd.registry import where

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(registry_app, name="registry")
app.add_typer(study_app, name="study")
app.command("ab")(ab)
app.command("gate")(gate)
app.command("plan")(plan)
app.command("simulate")(simulate)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Out = Annotated[Path, typer.Argument(help="Folder to write to.")]


def say(message: str) -> None:
    """Print a line on stdout."""
    typer.echo(message)


def show_night(night: Any, as_json: bool) -> None:
    """Print what a night came to; exit code 1 where the gate held the model back."""
    if as_json:
        say(json.dumps(night.to_json()))
    else:
        deltas = night.evaluation.deltas
        for name, metrics in night.evaluation.metrics.items():
            say(
                f"{name:<15} AUC {metrics['auc'].value:.4f}  logloss {metrics['logloss'].value:.4f}  "
                f"ECE {metrics['ece'].value:.4f}"
            )
        gain = deltas["student - control"]["auc"]
        say(f"student - control: {gain.value:+.4f} AUC ({gain.low:+.4f} to {gain.high:+.4f})")
        for check in night.verdict.checks:
            mark = "info" if not check.gates else ("ok" if check.passed else "NO")
            say(f"{mark:>4}  {check.sentence}")
        logloss = {name: metrics["logloss"].value for name, metrics in night.evaluation.metrics.items()}
        say(predicted_line(night.artifact.manifest.lineage.plan, night.artifact.bytes_on_disk, logloss))
        say(f"artifact  {night.artifact.path} ({night.artifact.bytes_on_disk:,} bytes)")
        live = "champion" if night.champion and night.champion.digest == night.artifact.digest else "registered only"
        say(f"version   {night.version.number}, {live}" if night.version else "version   none: it was not to publish")
        say(f"scored    {night.scored['candidates']} -> {night.scored['probability']}")
        say(f"report    {night.report_html}")
        say("passed the gate" if night.verdict.passed else "held back by the gate")
    if not night.verdict.passed:
        raise typer.Exit(1)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan.")] = False,
    publish: Annotated[bool, typer.Option(help="Register the artifact, and make it champion if it passes.")] = True,
    registry: Annotated[str | None, typer.Option(help="redis://... or an SQLite path, not the recipe's.")] = None,
    as_json: Json = False,
) -> None:
    """Run one model's night: read, teach, distil, compress, evaluate, gate, register."""
    from recsys_kd.settings import load_recipe

    loaded = load_recipe(recipe)
    if registry is not None:
        os.environ[where.VARIABLE] = registry  # not into the recipe, which reports print: it may hold a password
    from recsys_kd.flow.checks import check, check_log

    with named(recipe):
        check(loaded)  # before torch is imported, which takes seconds: a mistake in a recipe is told at once
    if dry_run:
        from recsys_kd.flow.dry_run import plan as dry_plan

        found = dry_plan(loaded, progress())
        say(json.dumps(found.to_json()) if as_json else "\n".join(found.lines()))
        return
    check_log(loaded)
    from recsys_kd.flow.night import run as run_night

    show_night(run_night(loaded, progress(), command=f"recsys-kd run {recipe}", publish=publish), as_json)


@app.command()
def demo(
    out: Out = Path("build/demo"),
    rows: Annotated[int, typer.Option(min=1000, help="Log rows, about.")] = 1_000_000,
    as_json: Json = False,
) -> None:
    """Run the whole night on a synthetic shop whose best possible AUC is known."""
    from recsys_kd.data.synth_config import shop_config
    from recsys_kd.flow.demo import demo as run_demo

    show_night(run_demo(shop_config(rows=rows), out, progress()), as_json)


@app.command()
def synth(
    out: Out,
    rows: Rows = 1_000_000,
    days: Days = 14,
    users: Users = 1500,
    items: Items = 1000,
    seed: Seed = 7,
    as_json: Json = False,
) -> None:
    """Write a synthetic shop's log, catalogue, truth and recipe."""
    from recsys_kd.data.synth import synthesize
    from recsys_kd.data.synth_config import shop_config
    from recsys_kd.flow.filling import filled

    config = shop_config(rows=rows, days=days, users=users, items=items, seed=seed)
    with filled(out):
        shop = synthesize(config, out, progress())
    found = {"rows": shop.rows, "folder": str(shop.folder), "recipe": str(shop.recipe)}
    say(json.dumps(found) if as_json else f"{shop.rows:,} rows in {out}; next: recsys-kd run {shop.recipe}")


@app.command("import")
def import_(
    config: Annotated[Path, typer.Argument(help="YAML that says what the source is; see README.")],
    out: Out,
    source: Annotated[Path | None, typer.Option(help="Folder of the sources; the YAML's own where absent.")] = None,
    as_json: Json = False,
) -> None:
    """Turn an interaction table (CSV, TSV, Parquet, libsvm) into a ranking log with a ready recipe."""
    from recsys_kd.data.interactions import import_interactions
    from recsys_kd.data.interactions_config import load_import
    from recsys_kd.flow.filling import filled

    loaded = load_import(config, source)
    with filled(out):
        found = import_interactions(loaded, out, progress())
    if as_json:
        say(json.dumps({"read": found.read, "events": found.events, "dropped": found.dropped, "rows": found.rows}))
        return
    say(f"{found.read:,} read = {found.events:,} events + {sum(found.dropped.values()):,} dropped")
    for reason, rows in found.dropped.items():
        say(f"  {rows:>10,}  {reason}")
    say(f"{found.rows:,} log rows; next: recsys-kd run {found.recipe}")


@app.command()
def score(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    request: Annotated[str, typer.Option(help="Request as JSON, e.g. '{\"user_id\": 5}'.")],
    candidates: Annotated[str, typer.Option(help="Candidate ids as a JSON list.")],
    as_json: Json = False,
) -> None:
    """Score candidates for one request through an artifact."""
    from recsys_kd.runtime.ranker import Ranker

    try:
        fields, ids = json.loads(request), json.loads(candidates)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}") from None
    found = Ranker.open(artifact).score(fields, ids)
    pairs = [{"item_id": i, "probability": float(p)} for i, p in zip(ids, found, strict=True)]
    say(json.dumps(pairs) if as_json else "\n".join(f"{p['item_id']}\t{p['probability']:.6f}" for p in pairs))


@app.command()
def doctor(
    store: Annotated[Path, typer.Option(help="Artifact store to look at.")] = Path("store"), as_json: Json = False
) -> None:
    """Check versions that must match, disk, memory, registry and store."""
    from recsys_kd.flow.doctor import as_json as plain
    from recsys_kd.flow.doctor import examine, exit_code

    findings = examine(store) + [f for check in extensions("recsys_kd.checks") for f in check()]
    if as_json:
        say(json.dumps(plain(findings)))
    else:
        for f in findings:
            say(f"{f.level:<8} {f.check:<14} {f.detail}")
    if code := exit_code(findings):
        raise typer.Exit(code)


OURS = frozenset(
    [c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands]
    + [str(group.name) for group in app.registered_groups]
)
"""Commands of this package: what others add to the command line need not be imported for them."""


def extensions(group: str) -> list[Callable[..., Any]]:
    """Return what installed distributions add to this command line, by entry point.

    One that needs a package which is not installed is left out: a host that only serves has no Redis client.
    """
    loaded = []
    for found in sorted(entry_points(group=group), key=lambda e: e.name):
        try:
            loaded.append(found.load())
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in (__package__.partition(".")[0], found.module.partition(".")[0]):
                raise
            app.info.epilog = f"Without `{found.name}`: {error}; install recsys-kd with its extra `{found.name}`"
    return loaded


def fail(message: str, kind: str, code: int) -> NoReturn:
    """End with an exit code: the message on stderr, and with `--json` as the one document on stdout."""
    print(f"recsys-kd: {message}", file=sys.stderr)
    if "--json" in sys.argv:
        say(json.dumps({"error": message, "kind": kind, "exit_code": code}))
    sys.exit(code)


def misused(error: TyperException) -> NoReturn:
    """End with 2 after arguments that no command takes: usage on stderr, and with `--json` as the one document."""
    rich_utils.rich_format_error(error)  # type: ignore[arg-type]
    if "--json" in sys.argv:
        what = f"{error.format_message()} See `recsys-kd {' '.join(sys.argv[1:2])} --help`"
        say(json.dumps({"error": what, "kind": type(error).__name__, "exit_code": RecsysKdError.exit_code}))
    sys.exit(RecsysKdError.exit_code)


def main() -> None:
    """Run the command line; errors of this package become one message and an exit code."""
    try:
        if sys.argv[1:2] == [] or sys.argv[1] not in OURS:
            for extend in extensions("recsys_kd.commands"):
                extend(app)
        code = app(standalone_mode=False)
    except TyperException as error:
        misused(error)
    except RecsysKdError as error:
        fail(str(error), type(error).__name__, error.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - Python would exit with 1, which says "held back by the gate"
        traceback.print_exc()
        what = "this is a defect of recsys-kd, not of your input; report it with the traceback on stderr"
        fail(what, type(error).__name__, OutsideError.exit_code)
    if code == INTERRUPTED:
        fail("interrupted; the same command continues where it was", "Interrupted", INTERRUPTED)
    sys.exit(code or 0)
