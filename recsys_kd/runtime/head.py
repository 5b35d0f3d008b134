"""The layers after the first, and how the kernel and its twin read their inputs.

Where a layer's weights are int8 codes, as in every artifact, its inputs (never negative, after a relu) are taken in
steps of their largest / 32767, candidate by candidate: 15 bits. Sums of such products are whole numbers: half the work
of float32. Measured: logits move by 2e-5 at most, log loss by 2e-13. A student whose `activations` are `float32` reads
them as they are (`compress.activations` says which it is to be). 8 bits would halve the work again and cost a log
loss of 4e-9, but they move logits by 3e-3, also where only the last bit before the rounding differs: no two instruction
sets would agree within 1e-5.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys_kd.tables import CodedMatrix, CompiledStudent, coded_exactly

Floats = NDArray[np.float32]
STEPS = 32767
LEAST = np.float32(1e-30)
"""Inputs no larger than this are taken for 0: their inverse would be infinite."""
WIDEST = 512
"""Inputs of a layer whose whole sums stay within 32 bits: 512 * 127 * 32767 < 2^31."""


@dataclass(frozen=True)
class Layer:
    """weight [out, in], bias [out]; `coded`: the codes of the weight, where inputs are read in `steps` steps."""

    weight: Floats
    bias: Floats
    coded: CodedMatrix | None
    steps: int = STEPS

    def __call__(self, x: Floats) -> Floats:
        """Return relu(bias + weight x) for x [N, in]."""
        out: Floats = np.maximum(
            (x if self.coded is None else in_steps(x, self.steps)) @ self.weight.T + self.bias, 0.0
        )
        return out


def pairs(codes: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return codes [in, out] of 16 bits, those of two inputs to an int32, the even one low: [(in + 1) // 2, out]."""
    even = np.pad(codes.astype(np.int16), ((0, len(codes) % 2), (0, 0))).view(np.uint16).astype(np.uint32)
    return (even[::2] | even[1::2] << np.uint32(16)).view(np.int32)


def in_steps(x: Floats, steps: int = STEPS) -> Floats:
    """Return x [N, in] rounded to whole steps of each row's largest / `steps`."""
    most = x.max(axis=1, keepdims=True, initial=0.0)
    inverse = np.where(most > LEAST, np.float32(steps) / np.maximum(most, LEAST), np.float32(0.0))
    rounded: Floats = np.rint(x * inverse) * (most * np.float32(1 / steps))
    return rounded


def hidden_layers(student: CompiledStudent) -> list[Layer]:
    """Return the layers between the first and the last."""
    layers: list[Layer] = []
    while (name := f"hidden.{len(layers) + 1}") + ".weight" in student.arrays:
        weight = student.arrays[f"{name}.weight"]
        whole = student.activations == "int16" and weight.shape[1] <= WIDEST
        coded = coded_exactly(weight) if whole else None
        layers.append(Layer(weight, student.arrays[f"{name}.bias"], coded))
    return layers


class Head:
    """Turns accumulated rows (h, S, s) into logits; `steps`: of coded layers' inputs, None for float32 as it is.

    What is served has `STEPS`; others are for measuring what that costs.
    """

    def __init__(self, student: CompiledStudent, steps: int | None = STEPS) -> None:
        layers = hidden_layers(student)
        changed = {"coded": None} if steps is None else {"steps": steps}
        self._student = student
        self._layers = layers if steps == STEPS else [replace(layer, **changed) for layer in layers]

    def __call__(self, sums: Floats) -> Floats:
        """Return logits [N] from rows [N, H + d + 1]."""
        arrays, first = self._student.arrays, self._student.first
        factors = sums[:, first:-1]
        x = np.maximum(sums[:, :first] + arrays["hidden.0.bias"], 0.0)
        for layer in self._layers:
            x = layer(x)
        wide = sums[:, -1] + 0.5 * np.einsum("nd,nd->n", factors, factors)
        logit = wide + x @ arrays["out.weight"] + arrays["bias"]
        if "calibration" in arrays:
            logit = arrays["calibration"][0] * logit + arrays["calibration"][1]
        out: Floats = logit.astype(np.float32)
        return out
