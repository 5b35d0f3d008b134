"""The report of a night: one self-contained HTML file, and the same as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from recsys_kd.evaluate.charts import calibration_plot, forest_plot, kept_epochs, loss_curves
from recsys_kd.evaluate.gate import UNTAUGHT
from recsys_kd.evaluate.writing import OTHER_STORE, write_whole

STAGES = ("teacher", "control", "control served", "student", "pruned", "recovered", "served", "champion")
_BEFORE = {
    "control": "teacher",
    "control served": "control",
    "student": "control",
    "pruned": "student",
    "recovered": "pruned",
    "served": "recovered",
}


@dataclass(frozen=True)
class Size:
    """Bytes on disk, and microseconds to score 1,000 candidates on one thread (None: not timed)."""

    bytes: int
    microseconds: float | None


@dataclass(frozen=True)
class Report:
    """Everything that is shown, as plain values; `verdict` and `evaluation` as their own `to_json`."""

    name: str
    created: str
    artifact: str
    verdict: dict[str, Any]
    evaluation: dict[str, Any]
    sizes: Mapping[str, Size]
    plan: dict[str, Any]
    export: dict[str, float]
    fits: Mapping[str, dict[str, Any]]
    fallback: dict[str, dict[str, float]]
    counts: dict[str, Any]
    splits: dict[str, int]
    stages: dict[str, str]
    ceiling: float | None
    command: str
    recipe: str
    versions: dict[str, str]
    digests: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What is to be said of values that were used, a sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Report":
        """Rebuild from `to_json`."""
        return Report(**{**data, "sizes": {k: Size(**v) for k, v in data["sizes"].items()}})

    @property
    def shrink(self) -> float | None:
        """Teacher bytes over artifact bytes, None without a teacher on disk."""
        teacher = self.sizes["teacher"].bytes
        return teacher / self.sizes["served"].bytes if teacher else None

    @property
    def taught(self) -> bool:
        """Whether the student learned from the teacher; the first line of a verdict says why it did not."""
        return all(check["name"] != UNTAUGHT for check in self.verdict["checks"])

    @property
    def speedup(self) -> float | None:
        """Teacher's scoring time over the artifact's."""
        slow, fast = self.sizes["teacher"].microseconds, self.sizes["served"].microseconds
        return slow / fast if slow and fast else None

    @property
    def headline(self) -> str:
        """One sentence for somebody who reads nothing else."""
        delta = self.evaluation["deltas"]["served - teacher"]["auc"]
        decision = "may go live" if self.verdict["passed"] else "was held back"
        parts = [f"The compact model {decision}"]
        if self.shrink and self.speedup:
            size, speed = times(self.shrink, "smaller", "larger"), times(self.speedup, "faster", "slower")
            parts.append(f"it is {size} and {speed} than the teacher")
        gained = "gains" if delta["value"] > 0 else "gives up"
        parts.append(f"{gained} {abs(delta['value']):.4f} AUC on {self.evaluation['rows']:,} test rows")
        return f"{parts[0]}: {' and '.join(parts[1:])}."


def times(ratio: float, more: str, less: str) -> str:
    """Return `15 times smaller`, or what it is the other way round where the ratio is below 1."""
    value, word = (ratio, more) if ratio >= 1 else (1 / ratio, less)
    return f"{value:.0f} times {word}" if value >= 10 else f"{value:.1f} times {word}"


def human_bytes(value: int | None) -> str:
    """Return a size in decimal units, `-` where there is none."""
    if not value:
        return "-"
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value = value / 1000  # type: ignore[assignment]
    return f"{value:.2f} GB"


def whole(value: float | None) -> str:
    """Return a number without decimals, `-` where nothing was measured."""
    return "-" if value is None else f"{value:.0f}"


def signed(interval: Mapping[str, float | None] | None, digits: int = 4) -> str:
    """Return `+0.0012 (+0.0008 to +0.0016)`, without the interval where there is none."""
    if interval is None or interval["value"] is None:
        return "-"
    text = f"{interval['value']:+.{digits}f}"
    if interval["low"] is None:
        return text
    return f"{text} ({interval['low']:+.{digits}f} to {interval['high']:+.{digits}f})"


def plain(interval: Mapping[str, float | None] | None, digits: int = 4) -> str:
    """Return `0.8123 ± 0.0021`."""
    if interval is None or interval["value"] is None:
        return "-"
    if interval["high"] is None:
        return f"{interval['value']:.{digits}f}"
    return f"{interval['value']:.{digits}f} ± {interval['high'] - interval['value']:.{digits}f}"


def stage_rows(report: Report) -> list[dict[str, Any]]:
    """Return the stage table: metrics of every model, and its AUC change against the stage before it."""
    metrics, deltas = report.evaluation["metrics"], report.evaluation["deltas"]
    rows = []
    for name in STAGES:
        if name in metrics:
            before = _BEFORE.get(name)
            delta = deltas.get(f"{name} - {before}", {}).get("auc") if before else None
            rows.append(
                {
                    "name": name,
                    "metrics": metrics[name],
                    "before": before,
                    "delta": delta,
                    "size": report.sizes.get(name),
                }
            )
    return rows


def render(report: Report) -> str:
    """Return the HTML page; everything from the run is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"bytes": human_bytes, "whole": whole, "signed": signed, "plain": plain, "times": times}
    evaluation = report.evaluation
    forest = {
        s["name"]: {m: s["auc"][m] for m in ("teacher", "control", "served") if m in s["auc"]}
        for s in evaluation["slices"]
        if s["auc"]
    }
    small = [s for s in evaluation["slices"] if not s["auc"]]
    calibrated = {m: evaluation["calibration"][m] for m in ("teacher", "control", "served")}
    return environment.get_template("report.html.j2").render(
        r=report,
        rows=stage_rows(report),
        idle=evaluation.get("uninformative", {}),
        metric_names=list(evaluation["metrics"]["served"]),
        losses=Markup(loss_curves(report.fits)),
        kept=kept_epochs(report.fits),
        calibration=Markup(calibration_plot(calibrated)),
        forest=Markup(forest_plot(forest)),
        small_slices=small,
        slice_rows={s["name"]: s["rows"] for s in evaluation["slices"]},
    )


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.json into `folder`, each whole or not at all. Raises: ReportUnwritable."""
    html, data = folder / "report.html", folder / "report.json"
    for path, text in ((html, render(report)), (data, json.dumps(report.to_json(), indent=1))):
        write_whole(path, text, OTHER_STORE)
    return html, data
