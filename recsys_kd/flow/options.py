"""The limits that an artifact is to keep, the forms that it may have, and the plan as text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Any, Literal

import yaml

from recsys_kd.compress.activations import ActivationChoice
from recsys_kd.evaluate.pareto import Point, draw

Fold = Literal["item", "field"]


@dataclass(frozen=True)
class Wanted:
    """The limits; None is no limit. loss: AUC that the artifact may lose to the float student on validation days."""

    bytes: int | None = None
    p50_us: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Option:
    """One form of the artifact, and what is known of it."""

    fold: Fold
    units: float
    """Share of hidden units kept."""
    tiers: bool
    budget: int
    bytes: int
    rows: dict[str, int]
    rank: dict[str, int]
    bits: dict[str, int]
    hot: dict[str, str]
    """What hot rows have beside, per table that has such."""
    predicted_nats: float
    """Second-order estimate of the log loss that pruning, narrowing and rounding cost, per row, before recovery."""
    p50_us: float
    """Median time of a request of 1,000 candidates, one thread, this machine."""
    auc: float | None = None
    """Of the fitted and quantized artifact on the validation days; None where it was ruled out before."""
    loss: float | None = None
    activations: ActivationChoice | None = None
    """How hidden layers read their inputs, and why; its times are of the day when forms were compared."""
    why: str = ""

    def timed_as(self, chosen: ActivationChoice | None) -> "Option":
        """Return it with a choice, and the time of its form: sketches are timed in whole numbers."""
        time = self.p50_us if chosen is None or chosen.form == "int16" else chosen.p50_us.get(chosen.form, self.p50_us)
        return replace(self, activations=chosen, p50_us=time)

    def too_slow(self, wanted: Wanted) -> str:
        """Return why it takes too long, or nothing."""
        slow = wanted.p50_us is not None and self.p50_us > wanted.p50_us
        return f"takes {ceil(self.p50_us)} us, more than {wanted.p50_us:g}" if slow else ""

    def point(self) -> Point:
        """Return where it lies in a picture; it must have been finished."""
        assert self.auc is not None
        return Point(f"fold {self.fold}", f"{self.units:.0%} of the units", self.bytes, self.auc, self.p50_us)

    def settings(self) -> dict[str, Any]:
        """Return what of a recipe's `compress` makes this form."""
        found: dict[str, Any] = {"bytes": self.budget, "fold": self.fold}
        found |= {"units": self.units} if self.units < 1 else {}
        found |= {} if self.tiers else {"tiers": False}
        return found | ({"activations": self.activations.form} if self.activations else {})


@dataclass(frozen=True)
class Planned:
    """All options and the one to take; `student` is the float student's AUC on the validation days."""

    options: list[Option]
    chosen: Option
    student: float
    student_bytes: int
    teacher_bytes: int
    kept: Mapping[str, Any] = field(default_factory=dict)
    """What of the recipe's `compress` the plan kept to and did not choose, where it is not the default."""
    warnings: tuple[str, ...] = ()

    def settings(self) -> str:
        """Return what the recipe's `compress` needs to say, as YAML of one line."""
        whole = self.chosen.settings() | dict(self.kept)
        return yaml.safe_dump(whole, default_flow_style=True, sort_keys=False, width=10_000).strip()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return asdict(self)

    def picture(self) -> str:
        """Return size, quality and latency of the options that were finished, beside the float student, as SVG."""
        whole = Point("float student", "before it is compressed", self.student_bytes, self.student)
        points = [o.point() for o in self.options if o.auc is not None]
        return draw([*points, whole], self.chosen.point(), "validation AUC")

    def lines(self) -> list[str]:
        """Return the plan as text."""
        head = f"{'fold':<6}{'units':>6}{'bytes':>12}{'ratio':>8}{'p50 us':>8}{'nats':>10}{'AUC':>9}{'lost':>9}  "
        out = [f"float student: validation AUC {self.student:.4f}", head]
        for o in self.options:
            ratio = f"{self.teacher_bytes / o.bytes:.1f}x" if self.teacher_bytes else ""
            found = f"{o.auc:>9.4f}{o.loss:>+9.4f}" if o.auc is not None and o.loss is not None else " " * 18
            out.append(
                f"{o.fold:<6}{o.units:>6.0%}{o.bytes:>12,}{ratio:>8}{o.p50_us:>8.0f}{o.predicted_nats:>10.6f}{found}"
                f"  {o.why}"
            )
        if any((o.loss or 0.0) < 0 for o in self.options):
            out.append("lost below 0 is a gain: pruned and fitted once more, it scores above the float student there")
        for name, rows in self.chosen.rows.items():
            shape = f"{self.chosen.rank[name]} numbers of {self.chosen.bits[name]} bits"
            hot = f", and {self.chosen.hot[name]}" if name in self.chosen.hot else ""
            out.append(f"table {name}: {rows:,} rows of {shape}{hot}")
        if self.chosen.activations:
            out.append(self.chosen.activations.line())
        out += [f"warning: {warning}" for warning in self.warnings]
        return [*out, f"write into the recipe: compress: {self.settings()}"]
