"""What the application adds to `recsys-kd`: `submit`, and `jobs` with what there is to do about nights.

Found by the entry point group `recsys_kd.commands`: the package itself knows no queue.
"""

import datetime as dt
import getpass
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import machine, reconcile, wanting
from jobs.board import Board
from jobs.config import from_environment
from jobs.desk import DEAD, Desk
from jobs.machine import Night
from jobs.places import recipe_of, registry_of
from recsys_kd.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Nights on Celery workers.")
Recipe = Annotated[Path, typer.Argument(help="YAML recipe; workers must see it under the same path.")]
Run = Annotated[str, typer.Argument(help="A night as MODEL@DATE, e.g. my-shop@2026-01-05.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
_FOLLOW_SECONDS = 1.0


def extend(root: typer.Typer) -> None:
    """Add the commands to `recsys-kd`."""
    root.add_typer(app, name="jobs")
    root.command()(submit)


def submit(
    recipe: Recipe,
    night: Annotated[
        dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day of the data; yesterday (UTC) if absent.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Have a night run by Celery workers; it is published once, however often it is submitted."""
    from jobs.tasks import send

    date = reconcile.yesterday() if night is None else night.date()
    (wanted,) = wanting.want(from_environment(), recipe, [date], send)
    over = wanted.phase in machine.OVER
    if as_json:
        more = {"phase": wanted.phase, "outcome": wanted.outcome} if over else {}
        typer.echo(json.dumps({"run": wanted.run} | more))
    elif over:
        typer.echo(f"{wanted.phase} already: {describe(wanted)}")
    else:
        typer.echo(f"{wanted.run}; next: recsys-kd jobs status {wanted.run} --follow")


@app.command()
def backfill(
    recipe: Recipe,
    first: Annotated[dt.datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First night.")],
    last: Annotated[dt.datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last night, included.")],
    as_json: Json = False,
) -> None:
    """Have every night from one date to another run, oldest first; published ones stay as they are."""
    from jobs.tasks import send

    if last < first:
        raise typer.BadParameter(f"--to {last.date()} is before --from {first.date()}.")
    days = [first.date() + dt.timedelta(days=n) for n in range((last - first).days + 1)]
    nights = wanting.want(from_environment(), recipe, days, send)
    over = Counter(n.phase for n in nights if n.phase in machine.OVER)
    already = ", ".join(f"{number} {phase}" for phase, number in sorted(over.items()))
    told = f"{len(nights)} nights are wanted{f', of them already {already}' if over else ''}"
    typer.echo(json.dumps({"runs": [n.run for n in nights]}) if as_json else f"{told}; next: recsys-kd jobs status")


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(help="One night as MODEL@DATE, or a model; all where absent.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print what the night says, until it is over.")] = False,
    as_json: Json = False,
) -> None:
    """Show where every night is, or follow one live: ends with 1 where it comes to nothing that is served."""
    board = Board(from_environment().state)
    if follow:
        if run is None or "@" not in run:
            raise typer.BadParameter("--follow needs one night, MODEL@DATE.")
        _follow(board, run)
    nights = [n for n in board.all() if run is None or run in (n.run, n.model)]
    if run is not None and not nights:
        raise machine.NotPossible(f"{run}: no night of that name is known; see `recsys-kd jobs status`")
    for line in [json.dumps([asdict(n) for n in nights])] if as_json else map(describe, nights):
        typer.echo(line)
    if follow and any(n.phase != "published" or n.outcome == "held" for n in nights):
        raise typer.Exit(1)


def _follow(board: Board, run: str) -> None:
    _existing(board, run)
    last, shown = "0-0", ""
    while True:
        night = board.get(run)
        for number, entry in board.lines(run, last):
            last = number
            typer.echo(f"{entry['stage']:<8} {entry['line']}", err=True)
        if night is None or night.phase in machine.OVER:
            return
        if (line := describe(night)) != shown:
            typer.echo(line, err=True)
            shown = line
        time.sleep(_FOLLOW_SECONDS)


def describe(night: Night) -> str:
    """Return a night as one line; of one that failed also what happens to it now."""
    where = f"{night.stage}, attempt {night.attempts}" if night.phase in ("queued", "running") else night.outcome
    times = " ".join(f"{stage} {seconds:.1f}s" for stage, seconds in night.seconds.items())
    parts = (night.run, night.phase, where, times, night.reason, _next(night))
    return "  ".join(part for part in parts if part)


def _next(night: Night) -> str:
    if night.phase == "dead":
        return f"(given up; mend it, then: recsys-kd jobs retry {night.run}; more: recsys-kd jobs show {night.run})"
    if night.phase == "cancelled":
        return f"(again: recsys-kd jobs retry {night.run})"
    if night.phase == "waiting" and night.waited and not night.attempts:
        return "(it is tried again by itself)"
    if night.phase == "waiting" and night.attempts:
        return f"(attempt {night.attempts} failed; it is tried again by itself)"
    return ""


def _existing(board: Board, run: str) -> Night:
    night = board.get(run)
    if night is None:
        raise machine.NotPossible(f"{run}: nobody wanted that night; see `recsys-kd jobs status`")
    return night


def _step(run: str, step: Any) -> None:
    board = Board(from_environment().state)
    _existing(board, run)
    typer.echo(describe(board.change(run, step)))


@app.command()
def show(run: Run) -> None:
    """Print all that is known of a night as JSON: its verdict; of a dead one, what is needed to look into it."""
    config = from_environment()
    night, desk = _existing(Board(config.state), run), Desk(config.desk)
    letter = desk.night_folder(night.model, night.night) / DEAD
    found = json.loads(letter.read_text()) if letter.exists() else {}
    if result := desk.found(night.model, night.night):
        told = {key: result.get(key) for key in ("passed", "reasons", "report")}
        found["verdict"] = told | {"held_by": desk.why_held(night.model, night.night)}
    typer.echo(json.dumps(found | {"night": asdict(night)}, indent=2))


@app.command()
def cancel(run: Run) -> None:
    """Stop a night for good; its process ends, and whatever it had to publish is refused."""
    config = from_environment()
    night, who = _existing(Board(config.state), run), getpass.getuser()
    machine.cancel(night, 0.0, who)  # raises where it can't be
    # Of one that is published meanwhile the registry's word counts.
    Desk(config.desk).cancel(night.model, night.night, who)
    _step(run, lambda n, now: machine.cancel(n, now, who))
    with suppress(InputError):  # a recipe that can't be read publishes nothing
        recipe = recipe_of(config, night.model, night.night, night.recipe)  # its worker publishes by this one too
        registry = registry_of(config, recipe, night.model)
        registry.claim(night.model, night.night)  # makes the publisher's claim void


@app.command()
def retry(
    run: Annotated[str, typer.Argument(help="A night as MODEL@DATE, or a model: all of its dead nights.")],
) -> None:
    """Start a dead or cancelled night again, or one that waits at once, with all its attempts."""
    from jobs.tasks import send

    config, who = from_environment(), getpass.getuser()
    nights = [_existing(Board(config.state), run)] if "@" in run else _dead(Board(config.state), run)
    for night in nights:
        machine.retry(night, 0.0, who)  # raises where it can't be
        Desk(config.desk).thaw(night.model, night.night)
        _step(night.run, lambda n, now: machine.retry(n, now, who))
    reconcile.start_next(config, nights[0].model, send)


def _dead(board: Board, model: str) -> list[Night]:
    """Return a model's dead nights, oldest first. Raises: NotPossible where there are none."""
    nights = [n for n in board.all() if n.model == model and n.phase == "dead"]
    if not nights:
        raise machine.NotPossible(f"{model}: no night of that model is dead; see `recsys-kd jobs status`")
    return nights


@app.command("reconcile")
def reconcile_command() -> None:
    """Compare wanted with published nights; start what is missing."""
    from jobs.tasks import send

    done = reconcile.reconcile(from_environment(), send)
    if done.started or not done.troubles:
        typer.echo("\n".join(done.started) or "nothing to start")
    if done.troubles:
        raise reconcile.Unreconciled(done.troubles)


@app.command()
def up(
    folder: Annotated[Path, typer.Argument(help="Logs and Redis's files.")] = Path("build/up"),
    beat: Annotated[bool, typer.Option(help="Celery beat too.")] = True,
) -> None:
    """Run Redis, workers, reconciler, beat and server on this machine, starting again whatever ends; Ctrl-C stops."""
    from jobs.up import run

    run(from_environment(), folder, beat)


@app.command()
def down(folder: Annotated[Path, typer.Argument(help="The folder that `up` was given.")] = Path("build/up")) -> None:
    """Stop what `up` started."""
    from jobs.up import stop

    typer.echo("stopped" if stop(folder) else "nothing was running")
