"""In how many bits hidden layers read their inputs, and why: what a plan says of it.

`int16`: 15 bits and a sign, times int8 weights, in whole sums. `float32`: as they are. 8 bits would halve the work
again, and are measured, but not on offer: they move logits by 3e-3 where only the last bit before the rounding differs,
so that no two kernels would agree within 1e-5 (`runtime.head`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from recsys_kd.tables import Activations

TOLERANCE = 1e-6
"""Nats per row of the validation days that whole numbers may cost."""
GAIN = 1.02
"""How many times faster they are to be; what two measurements of one form differ by is less."""


@dataclass(frozen=True)
class ActivationChoice:
    """The form that is served.

    loss: nats per row of the validation days more than with float32, by the bits of the activations; empty where no
    layer has int8 weights. p50_us: of a request of 1,000 candidates, by form; empty where no native kernel timed it.
    """

    form: Activations
    why: str
    loss: Mapping[str, float] = field(default_factory=dict)
    p50_us: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """Return the choice in words."""
        cost = ", ".join(f"{bits} bits {more:+.1e}" for bits, more in self.loss.items())
        time = ", ".join(f"{form} {us:.1f} us" for form, us in self.p50_us.items())
        told = [f"log loss beside float32: {cost}" if cost else "", time, f"{self.form} is served: {self.why}"]
        return "activations: " + "; ".join(part for part in told if part)

    @property
    def gain(self) -> float | None:
        """How many times as fast whole numbers are; None where that was not timed."""
        return self.p50_us["float32"] / self.p50_us["int16"] if self.p50_us else None

    def to_manifest(self) -> dict[str, Any]:
        """Return plain values, as stored in manifests: few bytes, for they are taken from the budget's."""
        loss = float(f"{self.loss['15']:.1e}") if self.loss else None
        return {"form": self.form, "loss": loss, "gain": self.gain and round(self.gain, 2)}

    def to_json(self) -> dict[str, Any]:
        """Return all that was measured, for reports."""
        return asdict(self)


def choose(
    wanted: Activations | Literal["auto"],
    loss: Mapping[str, float],
    p50_us: Mapping[str, float],
    tolerance: float = TOLERANCE,
) -> ActivationChoice:
    """Return the form that a recipe asks for, or with `auto` the one that measurements speak for."""
    if wanted != "auto":
        return ActivationChoice(wanted, "the recipe asks for it", loss, p50_us)
    if not loss:
        return ActivationChoice("int16", "no hidden layer has int8 weights, so nothing is rounded", loss, p50_us)
    if loss["15"] > tolerance:
        return ActivationChoice("float32", f"15 bits cost more than {tolerance:g} nats per row", loss, p50_us)
    gain = ActivationChoice("int16", "", loss, p50_us).gain
    if gain is None:
        return ActivationChoice("int16", f"15 bits cost at most {tolerance:g}; no native kernel is here to time", loss)
    if gain < GAIN:
        return ActivationChoice("float32", f"int16 is {gain:.2f} times as fast here, less than {GAIN}", loss, p50_us)
    why = f"15 bits cost at most {tolerance:g} nats per row and are {gain:.2f} times as fast"
    return ActivationChoice("int16", why, loss, p50_us)


LONGEST = ActivationChoice("float32", "", {"15": -1.2e-13}, {"float32": 12.34, "int16": 1.0}).to_manifest()
"""What a choice takes in a manifest, at most: budgets are planned before it is made."""
