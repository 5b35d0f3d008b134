"""Charts as inline SVG: no scripts, no fonts from elsewhere, colours from the page's variables (light and dark).

Every chart has a title and a description for screen readers, and scales with its box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40
COLOURS = {
    "teacher": "var(--c1)",
    "control": "var(--c2)",
    "student": "var(--c3)",
    "served": "var(--c3)",
    "champion": "var(--c4)",
}


@dataclass(frozen=True)
class Scale:
    """Maps data [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers that cover [low, high], about `count` of them."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** np.floor(np.log10(raw))
    step = min((s * power for s in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = np.ceil(low / step) * step
    return [float(round(v, 10)) for v in np.arange(first, high + step * 1e-6, step)]


def _label(value: float, step: float) -> str:
    digits = max(0, int(np.ceil(-np.log10(step) - 1e-9))) if step > 0 else 2
    if step > 0 and abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1
    return f"{value:.{digits}f}"


def words(kind: str, x: float, y: float, anchor: str, text: str, turn: str = "") -> str:
    """Return text at a place."""
    return f'<text class="{kind}"{turn} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def axes(x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], names: tuple[str, str]) -> str:
    """Return labelled axes with horizontal grid lines; `names` of x and y."""
    x_step, y_step = (t[1] - t[0] if len(t) > 1 else 1.0 for t in (x_ticks, y_ticks))
    parts = [words("tick", x(v), y.start + 16, "middle", _label(v, x_step)) for v in x_ticks]
    for v in y_ticks:
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>')
        parts.append(words("tick", x.start - 6, y(v) + 4, "end", _label(v, y_step)))
    middle = (y.start + y.end) / 2
    parts.append(words("name", (x.start + x.end) / 2, y.start + 34, "middle", names[0]))
    parts.append(words("name", 12, middle, "middle", names[1], f' transform="rotate(-90 12 {middle})"'))
    return "".join(parts)


def picture(title: str, description: str, body: str, height: int = HEIGHT, width: int = WIDTH) -> str:
    """Return a whole chart with its title and description."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{body}</svg>"
    )


def curve(points: Sequence[tuple[float, float]], colour: str, dashed: bool = False) -> str:
    """Return a line through pixels, with a dot at each unless it is dashed."""
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    dots = "" if dashed else "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{colour}"/>' for a, b in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>{dots}'


def loss_curves(fits: Mapping[str, Mapping[str, Any]]) -> str:
    """Return training (dashed) and validation loss per epoch of each model; a ring marks the epoch that was kept."""
    trained = {name: fit for name, fit in fits.items() if fit["epochs"]}
    losses = [e[k] for f in trained.values() for e in f["epochs"] for k in ("train_loss", "validation_loss")]
    if not losses:
        return ""
    last = max(len(f["epochs"]) for f in trained.values())
    pad = (max(losses) - min(losses)) * 0.06 or 0.01
    x = Scale(1, max(last, 2), LEFT, WIDTH - RIGHT)
    y = Scale(min(losses) - pad, max(losses) + pad, HEIGHT - BOTTOM, TOP)
    marks = [float(v) for v in range(1, max(last, 2) + 1, max(1, last // 8))]
    body = axes(x, y, marks, ticks(y.low, y.high), ("epoch", "logloss, nats"))
    for name, fit in trained.items():
        colour = COLOURS.get(name, "var(--c4)")
        at = [(x(i + 1), y(e["validation_loss"])) for i, e in enumerate(fit["epochs"])]
        body += curve([(x(i + 1), y(e["train_loss"])) for i, e in enumerate(fit["epochs"])], colour, dashed=True)
        body += curve(at, colour)
        px, py = at[fit["best"]]
        body += f'<circle cx="{px:.1f}" cy="{py:.1f}" r="6" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    return picture("Loss curves", "Training and validation loss by epoch", body)


def kept_epochs(fits: Mapping[str, Mapping[str, Any]]) -> str:
    """Return which epoch of each model was kept and the validation AUC that decided; `` where none was trained.

    Without an AUC (one class on the validation days) the loss decides.
    """
    trained = {name: (fit["best"], fit["epochs"][fit["best"]]) for name, fit in fits.items() if fit["epochs"]}
    aucs = {name: epoch.get("validation_auc") for name, (_, epoch) in trained.items()}
    parts = [
        f"{name} {at + 1}" + (f" ({aucs[name]:.4f})" if aucs[name] is not None else " (by loss, there being no AUC)")
        for name, (at, _) in trained.items()
    ]
    return ", ".join(parts)


def calibration_plot(models: Mapping[str, Sequence[Mapping[str, float]]], colours: Mapping[str, str] = COLOURS) -> str:
    """Return observed click rate against predicted probability per bin; on the diagonal is right."""
    high = max(max(p["predicted"], p["observed"]) for points in models.values() for p in points) * 1.05
    x, y = Scale(0, high, LEFT, WIDTH - RIGHT), Scale(0, high, HEIGHT - BOTTOM, TOP)
    marks = ticks(0, high)
    body = axes(x, y, marks, marks, ("predicted probability", "observed rate"))
    body += f'<line class="ideal" x1="{x(0)}" y1="{y(0)}" x2="{x(high)}" y2="{y(high)}"/>'
    for name, points in models.items():
        body += curve([(x(p["predicted"]), y(p["observed"])) for p in points], colours.get(name, "var(--c4)"))
    return picture("Calibration", "Observed click rate against predicted probability", body)


def forest_plot(slices: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return AUC with its interval per slice and model, one line each."""
    if not slices:
        return ""
    ends = [v for s in slices.values() for m in s.values() for v in (m["low"], m["high"], m["value"]) if v is not None]
    row, left, top = 15, 172, 10
    height = top + sum(row * len(s) + 12 for s in slices.values()) + 40
    x = Scale(max(0.0, min(ends) - 0.01), min(1.0, max(ends) + 0.01), left, WIDTH - RIGHT)
    body, y = "", float(top)
    marks = ticks(x.low, x.high)
    step = marks[1] - marks[0] if len(marks) > 1 else 0.1
    for v in marks:
        body += f'<line class="grid" x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top}" y2="{height - 36}"/>'
        body += f'<text class="tick" x="{x(v):.1f}" y="{height - 20}" text-anchor="middle">{_label(v, step)}</text>'
    for name, models in slices.items():
        middle = y + row * len(models) / 2 + 4
        body += f'<text class="tick" x="{left - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>'
        for model, found in models.items():
            colour, py = COLOURS.get(model, "var(--c4)"), y + row / 2
            low = found["value"] if found["low"] is None else max(found["low"], x.low)
            high = found["value"] if found["high"] is None else min(found["high"], x.high)
            body += (
                f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{py}" y2="{py}" stroke="{colour}" stroke-width="2"/>'
            )
            body += f'<circle cx="{x(found["value"]):.1f}" cy="{py}" r="4" fill="{colour}"/>'
            y += row
        y += 12
    body += f'<text class="name" x="{(x.start + x.end) / 2}" y="{height - 4}" text-anchor="middle">AUC</text>'
    return picture("AUC by slice", "AUC with confidence interval for parts of the test rows", body, height)
