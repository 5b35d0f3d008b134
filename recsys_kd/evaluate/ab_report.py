"""The page of an offline A/B: one self-contained HTML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from recsys_kd.evaluate.ab_charts import PALETTE, Bar, colours_of, forest, power_plot, weight_plot
from recsys_kd.evaluate.cautions import loses
from recsys_kd.evaluate.charts import calibration_plot
from recsys_kd.evaluate.comparison import Comparison
from recsys_kd.evaluate.effects import Effect
from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.evaluate.measure import direction
from recsys_kd.evaluate.words import told_p
from recsys_kd.evaluate.writing import write_whole

VERDICTS = {
    "better": "A winner",
    "doubted": "In doubt",
    "no worse": "No worse",
    "worse": "Worse",
    "undecided": "Not decided",
}

MOST_TOLD = 6
"""Warnings that stand under the headline; the others unfold."""


def change(interval: Interval) -> str:
    """Return `+0.00120 (+0.00030 to +0.00210)`."""
    if not np.isfinite(interval.value):
        return "-"
    if not np.isfinite(interval.low):
        return f"{interval.value:+.5f}"
    return f"{interval.value:+.5f} ({interval.low:+.5f} to {interval.high:+.5f})"


def ends(interval: Interval) -> str:
    """Return `+0.00030 to +0.00210`."""
    return f"{interval.low:+.5f} to {interval.high:+.5f}" if np.isfinite(interval.low) else "-"


def small(value: float) -> str:
    """Return a number to three digits, `-` where it is none."""
    return f"{value:.3g}" if np.isfinite(value) else "-"


def _deciding(found: Comparison, colours: Mapping[str, str]) -> str:
    bars = [_in_margins(e, colours[e.treatment]) for e in found.effects if e.margin is not None]
    return forest(bars, "change, in margins", {-1.0: "allowed loss"})


def _in_margins(effect: Effect, colour: str) -> Bar:
    scale = direction(effect.metric) / (effect.margin or 1.0)
    low, high = sorted((scale * effect.delta.low, scale * effect.delta.high))
    text = f"{effect.treatment}, {effect.metric}: {change(effect.delta)}"
    return Bar(effect.metric, low, scale * effect.delta.value, high, colour, text)


def _slices(found: Comparison, colours: Mapping[str, str], metric: str) -> str:
    bars = [
        Bar(
            f"{s.slice} · {s.clusters:,} {found.clustered_by}s",
            s.difference.low,
            s.difference.value,
            s.difference.high,
            colours[s.treatment],
            f"{s.treatment}, {s.slice}: {change(s.difference)}",
        )
        for s in found.slices
        if s.metric == metric
    ]
    return forest(bars, f"change in {metric}")


def _word(found: Comparison) -> str:
    """Return the outcome that heads the page: the best, and `doubted` where off-policy values speak against it."""
    kept = {word for t, word in found.outcomes.items() if t not in found.doubts}
    doubted = {"doubted" for t in found.doubts if found.outcomes[t] in ("better", "no worse")}
    words = kept | doubted | ({"worse"} if not kept else set())
    return next(w for w in ("better", "doubted", "undecided", "no worse", "worse") if w in words)


def render_page(
    found: Comparison,
    digests: Mapping[str, str],
    created: str,
    policies: Mapping[str, Any] | None = None,
    command: str = "",
) -> str:
    """Return the HTML page; everything from the log is escaped. policies: treatment -> `offpolicy.OffPolicy`.

    command: what makes the same page again.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"change": change, "ends": ends, "small": small, "p": told_p}
    colours = colours_of((found.control, *found.treatments))
    lead = next(e.metric for e in found.effects if e.margin is not None)
    margins = {e.metric: e.margin for e in found.effects if e.margin is not None}
    plain = found.to_json()["calibration"]
    word = _word(found)
    return environment.get_template("ab.html.j2").render(
        c=found,
        created=created,
        digests=digests,
        colours=colours,
        palette=PALETTE,
        lead=lead,
        winner=word in ("better", "no worse"),
        open=word in ("undecided", "doubted"),
        verdict=VERDICTS[word],
        deciding=Markup(_deciding(found, colours)),
        slices={m: Markup(_slices(found, colours, m)) for m in margins} if found.slices else {},
        losing={s.metric for s in found.slices if loses(s, 1 - found.confidence)},
        told=MOST_TOLD,
        command=command,
        calibration=Markup(calibration_plot(plain, colours)),
        power=Markup(power_plot(found.power_curves, found.power, margins)),
        policies=policies or {},
        weights={name: Markup(weight_plot(p.weights)) for name, p in (policies or {}).items()},
    )


def write_page(
    found: Comparison,
    digests: Mapping[str, str],
    created: str,
    path: Path,
    policies: Mapping[str, Any] | None = None,
    command: str = "",
) -> None:
    """Write the page, whole or not at all. Raises: ReportUnwritable."""
    write_whole(path, render_page(found, digests, created, policies, command))
