"""The charts of an offline A/B: forests of differences, the power curve, and histograms of importance weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from recsys_kd.evaluate.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, axes, curve, picture, ticks, words

LABEL_EMS = 30.0
"""Widest label of a forest: the chart's width in letters of 14 px, which narrow screens show."""
_NARROW, _WIDE = frozenset(" .,:;'|!()[]/Iijlft"), frozenset("MWm%@")
PALETTE = tuple(f"var(--c{i})" for i in (1, 3, 2, 4, 5, 6, 7, 8))


@dataclass(frozen=True)
class Bar:
    """One line of a forest: a difference with its interval, and whose it is."""

    group: str
    low: float
    value: float
    high: float
    colour: str
    text: str
    """What a reader who points at it is told."""


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour per model, the control's first."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def _ems(text: str) -> float:
    """Return about how wide a text is, in widths of its font; of common fonts the widest counts."""
    return sum(0.4 if c in _NARROW else 1.0 if c in _WIDE or c > "\u1100" else 0.63 for c in text)


def fitted(text: str, most: float = LABEL_EMS) -> str:
    """Return a text no wider than that, cut in its middle: names of one column differ at their ends."""
    kept, short = len(text), text
    while _ems(short) > most:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}\u2026{text[len(text) - kept // 2 :]}"
    return short


def forest(bars: Sequence[Bar], unit: str, marks: Mapping[float, str] | None = None) -> str:
    """Return differences with their intervals, one line each, under their groups; a line at 0 and at every mark."""
    known = [b for b in bars if np.isfinite([b.low, b.value, b.high]).all()]
    if not known:
        return ""
    groups = list(dict.fromkeys(b.group for b in known))
    row, top = 15, 24
    height = top + sum(row * sum(b.group == g for b in known) + 24 for g in groups) + 40
    ends = [v for b in known for v in (b.low, b.high)] + [0.0, *(marks or {})]
    pad = (max(ends) - min(ends)) * 0.05 or 1e-6
    x = Scale(min(ends) - pad, max(ends) + pad, 14 + (60 if marks else 0), WIDTH - RIGHT)
    body = _grid(x, top, height, marks or {})
    y, left = float(top), 14.0
    if x(0.0) < left + 30:  # the line at 0 would run through the first letters
        left = x(0.0) + 6
    for group in groups:
        body += f"<g><title>{escape(group)}</title>{words('tick over', left, y + 11, 'start', fitted(group))}</g>"
        y += 16
        for bar in (b for b in known if b.group == group):
            body += _bar(bar, x, y + row / 2)
            y += row
        y += 8
    body += words("name", (x.start + x.end) / 2, height - 4, "middle", unit)
    return picture("Differences", f"Differences with confidence intervals, {unit}", body, int(height))


def _grid(x: Scale, top: float, height: float, marks: Mapping[float, str]) -> str:
    values = ticks(x.low, x.high)
    body = ""
    for v in values:
        body += f'<line class="grid" x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top}" y2="{height - 36}"/>'
        body += words("tick", x(v), height - 20, "middle", f"{v + 0.0:g}")
    for v, name in {0.0: "no change", **marks}.items():
        body += f'<line class="ideal" x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top - 6}" y2="{height - 36}"/>'
        body += words("tick", x(v) + (3 if v >= 0 else -3), top - 10, "start" if v >= 0 else "end", name)
    return body


def _bar(bar: Bar, x: Scale, y: float) -> str:
    return (
        f"<g><title>{escape(bar.text)}</title>"
        f'<line x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{y}" y2="{y}" stroke="{bar.colour}" stroke-width="2"/>'
        f'<circle cx="{x(bar.value):.1f}" cy="{y}" r="4" fill="{bar.colour}"/></g>'
    )


def power_plot(curves: Mapping[str, Sequence[Sequence[float]]], wanted: float, margins: Mapping[str, float]) -> str:
    """Return power against effect size in margins, so that metrics share an axis; at 1 the margin itself."""
    known = {m: c for m, c in curves.items() if c and m in margins}
    if not known:
        return ""
    most = max(3.0, *(min(c[-1][0] / margins[m], 6.0) for m, c in known.items()))
    x, y = Scale(0, most, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    body = axes(x, y, ticks(0, most), ticks(0, 1), ("true effect, in margins", "chance to find it"))
    body += f'<line class="ideal" x1="{x(0)}" y1="{y(wanted)}" x2="{x(most)}" y2="{y(wanted)}"/>'
    for i, (metric, points) in enumerate(known.items()):
        inside = [(x(s / margins[metric]), y(p)) for s, p in points if s / margins[metric] <= most]
        body += curve(inside, PALETTE[i % len(PALETTE)])
    return picture("Power", "Chance that an effect of a given size is found on this log", body)


def weight_plot(weights: NDArray[np.float64], bins: int = 24) -> str:
    """Return a histogram of importance weights on a logarithmic axis; weights of 0 stand at its left end."""
    positive = weights[weights > 0]
    if len(positive) == 0:
        return ""
    low, high = np.floor(np.log10(max(positive.min(), 1e-4))), np.ceil(np.log10(max(positive.max(), 1.0)) + 1e-9)
    edges = np.linspace(low, max(high, low + 1), bins + 1)
    counts = np.histogram(np.log10(np.maximum(weights, 10.0**low)), edges)[0]
    x = Scale(float(edges[0]), float(edges[-1]), LEFT, WIDTH - RIGHT)
    y = Scale(0, float(counts.max()), HEIGHT - BOTTOM, TOP)
    body = axes(x, y, ticks(x.low, x.high), ticks(0, y.high), ("log10 of the weight", "rows"))
    for count, a, b in zip(counts, edges[:-1], edges[1:], strict=True):
        body += (
            f'<rect x="{x(a) + 1:.1f}" y="{y(count):.1f}" width="{x(b) - x(a) - 2:.1f}" '
            f'height="{y(0) - y(count):.1f}" fill="var(--c1)"/>'
        )
    return picture("Weights", "How often each importance weight occurs", body)
