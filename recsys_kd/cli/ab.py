"""`recsys-kd ab`: who wins on a log, by how much, how sure, for whom."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys_kd.cli.display import progress
from recsys_kd.cli.registry import Where as Registry

if TYPE_CHECKING:
    from recsys_kd.evaluate.comparison import Comparison
    from recsys_kd.evaluate.effects import Effect
    from recsys_kd.evaluate.offpolicy import OffPolicy


def ab(  # noqa: PLR0913 - one per option
    control: Annotated[str, typer.Option(help="model@alias, model@version, artifact folder, or log column of scores.")],
    treatment: Annotated[list[str], typer.Option(help="The same; give it once for every treatment.")],
    log: Annotated[Path, typer.Option(help="Parquet log: a file or a folder.")],
    recipe: Annotated[Path | None, typer.Option(help="Recipe: columns, catalogue, margins (`ab:`).")] = None,
    store: Annotated[Path, typer.Option(help="Artifact store that holds the registry.")] = Path("store"),
    registry: Registry = None,
    since: Annotated[str | None, typer.Option(help="Compare rows from this time on; earlier ones are history.")] = None,
    scores: Annotated[
        list[str] | None, typer.Option(help="What score columns hold: logit, probability, or COLUMN=logit.")
    ] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Write rows that can't be used to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Compare models offline on a log: paired, clustered by user or request, with margins, slices and power."""
    from recsys_kd.evaluate.ab_report import write_page
    from recsys_kd.flow.ab import compare_log, today
    from recsys_kd.flow.ab_scores import parse_scores
    from recsys_kd.flow.outputs import check_outputs, inputs_of
    from recsys_kd.registry.where import is_url

    kinds = parse_scores(scores or ())
    check_outputs({"--html": html, "--quarantine": quarantine}, inputs_of(log, recipe, store, registry))
    found = compare_log(log, control, treatment, recipe, store, since, kinds, progress(), quarantine, registry)
    if html is not None:
        where = None if registry is None or is_url(registry) else registry  # a URL may hold a password
        named = {"log": log, "recipe": recipe, "store": store, "registry": where, "since": since}
        again = command_of(control, treatment, named, scores)
        write_page(found.comparison, found.digests, today(), html, found.policies, again)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    show(found.comparison)
    if found.groups is not None and not found.groups.broken:
        typer.echo(found.groups.sentence)
    show_policies(found.policies)
    if html is not None:
        typer.echo(f"report  {html}")


def command_of(control: str, treatments: list[str], options: Mapping[str, object], scores: list[str] | None) -> str:
    """Return the command that compares the same again."""
    parts = ["recsys-kd", "ab", "--control", control]
    named = [("treatment", t) for t in treatments] + [(k, v) for k, v in options.items() if v is not None]
    for name, value in [*named, *(("scores", s) for s in scores or ())]:
        parts += [f"--{name}", str(value)]
    return shlex.join(parts)


WIDE = 10_000
"""Columns to print a table in, as many as it needs: a number must not be cut where a terminal is narrow, or none."""


def _row(effect: "Effect", bold: bool, idle: bool) -> list[str]:
    from recsys_kd.evaluate.words import told_p

    interval = f"{effect.delta.low:+.5f} .. {effect.delta.high:+.5f}"
    boot = f"{effect.bootstrap.low:+.5f} .. {effect.bootstrap.high:+.5f}"
    p = effect.adjusted_p if bold else effect.p
    return [
        effect.metric,
        f"{effect.control_value:.5f}",
        f"{effect.treatment_value:.5f}",
        f"{effect.delta.value:+.5f}",
        "-" if effect.delta.low != effect.delta.low else interval,
        "-" if effect.bootstrap.low != effect.bootstrap.low else boot,
        told_p(p) + ("*" if bold else ""),
        "-" if effect.detectable != effect.detectable else f"{effect.detectable:.2g}",
        "says nothing" if idle else effect.outcome.replace("not decided on", ""),
    ]


def show(found: "Comparison") -> None:
    """Print a comparison: the sentence, a table per treatment, slices that tell, warnings."""
    from recsys_kd.evaluate.cautions import loses

    console = Console(soft_wrap=True, highlight=False)
    console.print(found.headline, markup=False)
    console.print(
        f"{found.rows:,} rows, {found.users:,} users, {found.requests:,} requests, click rate "
        f"{found.positive_rate:.4f}; {found.confidence:.0%} intervals, paired, clustered by {found.clustered_by}"
    )
    for treatment in found.treatments:
        table = Table(title=escape(f"{treatment} - {found.control}"), title_justify="left")
        for name in ("metric", "control", "treatment", "change", "delta method", "bootstrap", "p", "detects", ""):
            table.add_column(name, justify="left" if name in ("metric", "") else "right", no_wrap=True)
        for effect in (e for e in found.effects if e.treatment == treatment):
            table.add_row(*map(escape, _row(effect, effect.margin is not None, effect.metric in found.uninformative)))
        Console(width=WIDE, highlight=False).print(table)
        for metric, why in found.uninformative.items():
            console.print(f"{metric} says nothing: {why}", markup=False)
        console.print(
            "p*: Holm's, over all metrics that decide and all treatments; the others are not corrected. detects: the "
            f"effect found {found.power:.0%} of the time",
            markup=False,
        )
        console.print(f"score drift (PSI) {found.drift[treatment]:.4f}")
    lead = next(e.metric for e in found.effects if e.margin is not None)
    if found.slices:
        console.print(
            f"{lead} by slice, and what else loses there (intervals hold for all slices and deciding metrics at once):"
        )
    for part in (s for s in found.slices if s.metric == lead or loses(s, 1 - found.confidence)):
        difference = part.difference
        console.print(
            f"  {part.slice:<40} {part.treatment:<16} {part.metric:<8} {difference.value:+.5f} "
            f"({difference.low:+.5f} .. {difference.high:+.5f})  {part.clusters:,} {found.clustered_by}s",
            markup=False,
        )
    for warning in found.warnings:
        console.print(f"warning: {warning}", markup=False)


def show_policies(policies: "Mapping[str, OffPolicy]") -> None:
    """Print off-policy values, one line per estimator."""
    for name, found in policies.items():
        overlap = found.overlap
        typer.echo(
            f"off-policy value of {name}: the log earned {found.logged.value:.5f}; effective sample "
            f"{overlap.effective:,.0f} of {overlap.rows:,}, largest weight {overlap.largest:.3g}, mean "
            f"{overlap.mean:.3f} (should be 1)"
        )
        for estimator, value in found.estimates.items():
            lift = found.lift[estimator]
            typer.echo(
                f"  {estimator:<20} {value.value:.5f} ({value.low:.5f} .. {value.high:.5f})   "
                f"lift {lift.value:+.5f} ({lift.low:+.5f} .. {lift.high:+.5f})"
                f"{'   weights do not average 1' if estimator in found.off else ''}"
            )
