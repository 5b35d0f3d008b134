"""`recsys-kd study`: what each way to distil gains on a log, over seeds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from recsys_kd.cli.display import progress
from recsys_kd.cli.toy import toy

if TYPE_CHECKING:
    from recsys_kd.flow.study import Study

app = typer.Typer(no_args_is_help=True, help="Studies: what each choice is worth on your log.")
app.command()(toy)


@app.callback()
def studies() -> None:
    """Studies: what each choice is worth on your log."""


@app.command()
def distil(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from the recipe's on.")] = 5,
    arms: Annotated[str, typer.Option(help="Only these arms, with commas; all where absent.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Train a student in every way there is, with several seeds, and compare them on the test days."""
    import datetime as dt

    from recsys_kd.evaluate.ablation_report import render_study, write_study
    from recsys_kd.flow.checks import check, check_log
    from recsys_kd.settings import load_recipe

    loaded = load_recipe(recipe)
    check(loaded)  # before torch is imported
    check_log(loaded)
    from recsys_kd.flow.study import study

    asked = list(dict.fromkeys(name.strip() for name in arms.split(",") if name.strip()))
    done = study(loaded, seeds, asked, progress())
    command = f"recsys-kd study distil {recipe} --seeds {seeds}" + (f" --arms {','.join(asked)}" if asked else "")
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    page = render_study(done.name, done.found, done.what, done.warnings, command, created)
    plain = {**done.to_json(), "command": command, "created": created}
    folder = f"study-{created[:19].replace(':', '')}"  # by the second: studies of one day differ in their arms
    html = write_study(page, plain, loaded.store / loaded.name / "reports" / folder)
    if as_json:
        typer.echo(json.dumps({**plain, "report": str(html)}))
        return
    show(done)
    typer.echo(f"report  {html}")


def show(done: "Study") -> None:
    """Print the table."""
    from recsys_kd.evaluate.ablation_report import share

    found = done.found
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{found.rows:,} test rows, {found.users:,} users, {len(found.seeds)} seed(s); {found.confidence:.0%} "
        "intervals, by user and seed"
    )
    table = Table()
    for name in ("arm", "AUC", "less the control's", "interval", "gap closed", "logloss", "ECE"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    for a in found.arms:
        control = a.name == "control"
        table.add_row(
            a.name,
            f"{a.auc.value:.5f}",
            "" if control else f"{a.gain.value:+.5f}",
            "" if control else f"{a.gain.low:+.5f} .. {a.gain.high:+.5f}",
            "" if a.name in ("control", "teacher") else share(a.gap),
            f"{a.logloss:.5f}",
            f"{a.ece:.4f}",
        )
    Console(width=120 if not console.is_terminal else None, highlight=False).print(table)
    for warning in done.warnings:
        console.print(f"warning: {warning}", markup=False)
