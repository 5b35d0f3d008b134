"""The page of an ablation study: one self-contained HTML file with its plot and table, and the same as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from recsys_kd.evaluate.ab_charts import PALETTE, Bar, forest
from recsys_kd.evaluate.ab_report import change
from recsys_kd.evaluate.ablation import CONTROL, TEACHER, Ablation, Arm
from recsys_kd.evaluate.evaluation import Interval
from recsys_kd.evaluate.writing import OTHER_STORE, write_whole


def share(interval: Interval) -> str:
    """Return `52% (31% to 70%)`, `-` where nothing is known."""
    if interval.value != interval.value:
        return "-"
    ends = f" ({interval.low:.0%} to {interval.high:.0%})" if interval.low == interval.low else ""
    return f"{interval.value:.0%}{ends}"


def plot(found: Ablation) -> str:
    """Return every arm's gain over the control with its interval, and where the teacher stands."""
    return forest(
        [_bar(arm) for arm in found.arms if arm.name not in (TEACHER, CONTROL)],
        "AUC less the control's",
        {found.arm(TEACHER).gain.value: "teacher"},
    )


def _bar(arm: Arm) -> Bar:
    colour = PALETTE[0 if arm.gain.low > 0 else 2 if arm.gain.high < 0 else 3]
    return Bar(arm.name, arm.gain.low, arm.gain.value, arm.gain.high, colour, f"{arm.name}: {change(arm.gain)}")


def render_study(
    name: str, found: Ablation, what: Mapping[str, str], warnings: Sequence[str], command: str, created: str
) -> str:
    """Return the HTML page; everything from the run is escaped. what: arm -> what it is."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"change": change, "share": share}
    return environment.get_template("study.html.j2").render(
        name=name,
        found=found,
        what=what,
        warnings=warnings,
        command=command,
        created=created,
        plot=Markup(plot(found)),
        colours={"better than the control": PALETTE[0], "worse": PALETTE[2], "not decided": PALETTE[3]},
    )


def write_study(page: str, plain: Mapping[str, Any], folder: Path) -> Path:
    """Write study.html and study.json into `folder`, each whole or not at all. Raises: ReportUnwritable."""
    for name, text in (("study.html", page), ("study.json", json.dumps(plain, indent=1))):
        write_whole(folder / name, text, OTHER_STORE)
    return folder / "study.html"
