"""The student of the scoring benchmark as its peers run it: ONNX Runtime, torch, AOTInductor, torchrec.

All compute the same logits from row numbers (which row an id has, they are told), request side included. Folded:
one row of H + d + 1 numbers per item, coded again in 8 bits. Unfolded: the artifact's own numbers, which are multiplied
through the first layer when a request comes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from recsys_kd.runtime.affine import affine, calibration
from recsys_kd.tables import OVERHEAD, CompiledStudent, middle

Floats = NDArray[np.float32]
Score = Callable[[NDArray[np.int64]], Floats]


@dataclass(frozen=True)
class Rows:
    """8-bit rows with scale and offset: values = (codes * scale + offset) @ basis + mean."""

    codes: NDArray[np.uint8]
    scale: Floats
    offset: Floats
    basis: Floats
    mean: Floats


def rows_of(student: CompiledStudent, name: str) -> Rows:
    """Return a term's table in 8 bits a code, and the map to (h, S, s)."""
    term = next(t for t in student.terms if t.name == name)
    table, parts = student.tables[term.table or ""], affine(student, term)
    scale = table.scales().astype(np.float32)[:, None]  # type: ignore[attr-defined]
    data = table.data[:, :-OVERHEAD]  # type: ignore[attr-defined]
    codes = data if table.bits == 8 else np.stack([data & 15, data >> 4], axis=2).reshape(len(data), -1)  # type: ignore[attr-defined]
    codes = np.ascontiguousarray(codes[:, : table.dim])
    basis, mean = (x.astype(np.float32) for x in (parts.matrix, parts.mean))
    return Rows(codes, scale, -np.float32(middle(table.bits)) * scale, basis, mean)


def widened(rows: Rows, chunk: int = 100_000) -> Rows:
    """Return rows that hold what they add, coded in 8 bits again: no basis is left to multiply by."""
    codes, scales, offsets = [], [], []
    for start in range(0, len(rows.codes), chunk):
        part = slice(start, start + chunk)
        wide = (rows.codes[part] * rows.scale[part] + rows.offset[part]) @ rows.basis + rows.mean
        low = wide.min(axis=1, keepdims=True)
        scale = (wide.max(axis=1, keepdims=True) - low) / 255
        codes.append(np.rint((wide - low) / scale).astype(np.uint8))
        scales.append(scale)
        offsets.append(low)
    none = np.zeros(0, dtype=np.float32)
    return Rows(np.concatenate(codes), np.concatenate(scales), np.concatenate(offsets), none, none)


class Torch(nn.Module):
    """The student in torch, from row numbers: user [1], device [1], history [L], items [N]."""

    def __init__(self, student: CompiledStudent, item: Rows, folded: bool) -> None:
        super().__init__()
        self.first, self.width, self.folded = student.first, student.width, folded
        parts = {"item": item, **{n: rows_of(student, n) for n in ("user_id", "device", "history")}}
        for name, rows in parts.items():
            for field in ("codes", "scale", "offset", "basis", "mean"):
                if name == "history" and field in ("codes", "scale", "offset"):
                    continue
                self.register_buffer(f"{name}_{field}", torch.from_numpy(np.array(getattr(rows, field))))
        # Histories read the items' own coordinates, whatever the items are scored from.
        own = rows_of(student, "history")
        for field in ("codes", "scale", "offset"):
            self.register_buffer(f"history_{field}", torch.from_numpy(np.array(getattr(own, field))))
        for name in ("hidden.0.bias", "hidden.1.weight", "hidden.1.bias", "out.weight", "bias"):
            self.register_buffer(name.replace(".", "_"), torch.from_numpy(np.array(student.arrays[name])))
        self.slope, self.shift = calibration(student)

    def rows(self, name: str, at: Tensor) -> Tensor:
        """Return what table rows add, or their mean coordinates' values."""
        get = self.get_buffer
        z = get(f"{name}_codes")[at].float() * get(f"{name}_scale")[at] + get(f"{name}_offset")[at]
        if name == "history":
            z = z.mean(0, keepdim=True)
        if name == "item" and self.folded:
            return z
        return z @ get(f"{name}_basis") + get(f"{name}_mean")

    def forward(self, user: Tensor, device: Tensor, history: Tensor, items: Tensor) -> Tensor:
        """Return logits [N]."""
        first, get = self.first, self.get_buffer
        shared = self.rows("device", device)
        for name, at in (("user_id", user), ("history", history)):
            own = self.rows(name, at)
            square = 0.5 * own[:, first:-1].square().sum(1)
            shared = shared + torch.cat([own[:, :-1], own[:, -1:] - square[:, None]], dim=1)
        sums = self.rows("item", items) + shared
        x = torch.relu(sums[:, :first] + get("hidden_0_bias"))
        x = torch.relu(x @ get("hidden_1_weight").T + get("hidden_1_bias"))
        wide = sums[:, -1] + 0.5 * sums[:, first:-1].square().sum(1)
        return self.slope * (wide + x @ get("out_weight") + get("bias")) + self.shift


class Graph:
    """Collects the nodes of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[object] = []
        self.constants: list[object] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant, and return its name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], outputs: list[str] | None = None, **attributes: object) -> str:
        """Add a node, and return its first output's name."""
        names = outputs or [f"n{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def rows(self, name: str, rows: Rows, at: str, mean: bool = False, shared: str | None = None) -> str:
        """Add a table's lookup: gather, dequantize, pool, multiply by the basis (adding `shared`)."""
        c = {f: self.constant(f"{name}.{f}", getattr(rows, f)) for f in ("codes", "scale", "offset")}
        got = {f: self.add("Gather", [c[f], at]) for f in c}
        z = self.add("Cast", [got["codes"]], to=TensorProto.FLOAT)
        z = self.add("Add", [self.add("Mul", [z, got["scale"]]), got["offset"]])
        if mean:
            z = self.add("ReduceMean", [z, self.constant(f"{name}.axes", np.array([0]))], keepdims=1)
        if not len(rows.basis):
            return self.add("Add", [z, shared or ""])
        base = self.constant(f"{name}.mean", rows.mean[None])
        if shared:
            base = self.add("Add", [shared, base])
        return self.add("Gemm", [z, self.constant(f"{name}.basis", rows.basis), base])


def onnx_model(student: CompiledStudent, item: Rows) -> bytes:
    """Return the student as an ONNX model that reads its items from `item`."""
    g, first, width = Graph(), student.first, student.width
    split = g.constant("split", np.array([first, width, 1]))
    half = g.constant("half", np.full((width, 1), 0.5, np.float32))

    def squared(sums: str, name: str) -> tuple[str, str, str, str]:
        g.add("Split", [sums, split], [f"{name}.h", f"{name}.S", f"{name}.s"], axis=1)
        square = g.add("MatMul", [g.add("Mul", [f"{name}.S", f"{name}.S"]), half])
        return f"{name}.h", f"{name}.S", f"{name}.s", square

    shared = g.rows("device", rows_of(student, "device"), "device")
    for name in ("user_id", "history"):
        own = g.rows(name, rows_of(student, name), name, mean=name == "history")
        h, s_vector, s, square = squared(own, name)
        shared = g.add("Add", [shared, g.add("Concat", [h, s_vector, g.add("Sub", [s, square])], axis=1)])
    bias = np.concatenate([student.arrays["hidden.0.bias"], np.zeros(width), student.arrays["bias"]]).astype(np.float32)
    shared = g.add("Add", [shared, g.constant("bias", bias[None])])
    h, _, s, square = squared(g.rows("item", item, "item", shared=shared), "all")
    x = g.add("Relu", [h])
    weight = g.constant("w1", student.arrays["hidden.1.weight"].T)
    x = g.add("Relu", [g.add("Gemm", [x, weight, g.constant("b1", student.arrays["hidden.1.bias"])])])
    deep = g.add("Gemm", [x, g.constant("w2", student.arrays["out.weight"][:, None]), g.add("Add", [s, square])])
    slope, shift = (
        g.constant(n, np.float32([v])) for n, v in zip(("slope", "shift"), calibration(student), strict=True)
    )
    g.add("Add", [g.add("Mul", [deep, slope]), shift], ["logit"])
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["n" if n == "item" else f"{n}_n"])
        for n in ("user_id", "device", "history", "item")
    ]
    output = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph(g.nodes, "student", inputs, [output], g.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def onnx_score(model: bytes, shared: Mapping[str, NDArray[np.int64]]) -> Score:
    """Return a scorer of item rows on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda items: session.run(None, {**shared, "item": items})[0][:, 0]
