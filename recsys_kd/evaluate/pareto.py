"""Size, quality and latency in one picture: bytes across, AUC upwards, microseconds at the points."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from recsys_kd.evaluate.charts import Scale, axes, curve, picture, ticks, words

OURS = "ours"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 440, 60, 190, 18, 46
_COLOURS = ("#1b6ac9", "#5c6b7d", "#c9541b", "#2a8f4c", "#8a4fbf", "#a87900", "#c0307a", "#008b8b")
_STYLE = (
    "<style>svg{background:#fff;font-family:system-ui,sans-serif}.tick{font-size:11px;fill:#5c6b7d}"
    ".name{font-size:12px;fill:#5c6b7d}.grid{stroke:#dde3ea}.time{font-size:10px;fill:#1b6ac9}</style>"
)
_POWERS = {3: "KB", 6: "MB", 9: "GB"}


@dataclass(frozen=True)
class Point:
    """One model: what it is, its bytes, AUC and (where it was timed) median microseconds of 1,000 candidates."""

    way: str
    detail: str
    bytes: int
    auc: float
    p50: float | None = None


def told_bytes(size: float) -> str:
    """Return bytes in the largest unit that leaves at least one of it: `467 KB`."""
    power = max((p for p in _POWERS if float(f"{size:.3g}") >= 10**p), default=0)
    return f"{size / 10**power:,.3g} {_POWERS[power]}" if power else f"{size:,.0f} B"


def draw(points: Sequence[Point], chosen: Point | None = None, measured: str = "test AUC") -> str:
    """Return the picture as SVG: every way a colour and a line, `chosen` in a ring."""
    sizes, values = [float(np.log10(p.bytes)) for p in points], [p.auc for p in points]
    pad = (max(values) - min(values)) * 0.08 or 0.01
    x = Scale(min(sizes) - 0.1, max(sizes) + 0.1, _LEFT, _WIDTH - _RIGHT)
    y = Scale(min(values) - pad, max(values) + pad, _HEIGHT - _BOTTOM, _TOP)
    body = _STYLE + axes(x, y, [], ticks(y.low, y.high), ("bytes", measured)) + _sizes(x, y)
    for i, way in enumerate(dict.fromkeys(p.way for p in points)):
        own, colour = sorted((p for p in points if p.way == way), key=lambda p: p.bytes), _COLOURS[i % len(_COLOURS)]
        body += curve([_at(p, x, y) for p in own], colour) + _key(i, way, colour)
        body += "".join(_named(p, x, y) for p in own)
    if chosen is not None:
        px, py = _at(chosen, x, y)
        body += f'<circle cx="{px:.1f}" cy="{py:.1f}" r="7" fill="none" stroke="#1b2430" stroke-width="1.5"/>'
        at = _TOP + 22 + 20 * len({p.way for p in points})
        body += words("name", _WIDTH - _RIGHT + 18, at, "start", f"ring: {told_bytes(chosen.bytes)}, {chosen.auc:.4f}")
    return picture("Size, quality and latency", f"{measured} over bytes, one line per way", body, _HEIGHT, _WIDTH)


def _at(point: Point, x: Scale, y: Scale) -> tuple[float, float]:
    return x(float(np.log10(point.bytes))), y(point.auc)


def _sizes(x: Scale, y: Scale) -> str:
    """Return the labels of the axis of bytes: 1, 2 and 5 of every power of ten."""
    powers = range(int(np.floor(x.low)), int(np.ceil(x.high)) + 1)
    marks = np.array([step * 10.0**power for power in powers for step in (1, 2, 5)])
    inside = marks[(np.log10(marks) >= x.low) & (np.log10(marks) <= x.high)]
    return "".join(words("tick", x(float(np.log10(m))), y.start + 16, "middle", told_bytes(m)) for m in inside)


def _named(point: Point, x: Scale, y: Scale) -> str:
    """Return what a pointer over a point tells, and its time beside it."""
    px, py = _at(point, x, y)
    time = "" if point.p50 is None else words("time", px, py + 16, "middle", f"{point.p50:.0f} us")
    told = f"{point.way} {point.detail}: {point.bytes:,} bytes, {point.auc:.4f}"
    spot = f'<rect x="{px - 5:.1f}" y="{py - 5:.1f}" width="10" height="10" fill-opacity="0"/>'
    return f"<g><title>{escape(told)}</title>{spot}</g>{time}"


def _key(place: int, way: str, colour: str) -> str:
    at = _TOP + 10 + 20 * place
    dot = f'<rect x="{_WIDTH - _RIGHT + 18}" y="{at - 8}" width="9" height="9" fill="{colour}"/>'
    return dot + words("name", _WIDTH - _RIGHT + 33, at, "start", way)
