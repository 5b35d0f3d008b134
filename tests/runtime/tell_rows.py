"""A student whose logit names the item's row: shows which rows a kernel reads."""

from dataclasses import dataclass

import numpy as np

from recsys_kd.index import KeyIndex
from recsys_kd.runtime.library import Kernel
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.schema import Field, Schema, Vocabulary
from recsys_kd.tables import CodedRows, CompiledStudent, Term


@dataclass(frozen=True)
class RowTeller:
    """`rows` returns the table row that each key was given."""

    ranker: Ranker

    def rows(self, keys: np.ndarray) -> np.ndarray:
        logits = self.ranker.score({}, keys, logits=True)
        return np.rint(logits).astype(np.int64)


def row_teller(index: KeyIndex, kernel: Kernel) -> RowTeller:
    """Row i holds i in two codes of 8 bits, z = (low, high) - 127.5; its logit is low + 256 high."""
    rows = np.arange(len(index) + 1)
    data = np.zeros((len(rows), 2 + 2), dtype=np.uint8)
    data[:, 0], data[:, 1] = rows % 256, rows // 256
    data[:, 2:] = np.array([1.0], dtype=np.float16).view(np.uint8)
    schema = Schema(
        (Field("item_id", "id", "item", "item_id"),), {"item_id": Vocabulary("item_id", len(rows), "int64")}
    )
    zero = np.zeros(1, dtype=np.float32)
    arrays = {
        "basis.item": np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 256.0]], dtype=np.float32),
        "mean.item": np.array([0.0, 0.0, 257 * 127.5], dtype=np.float32),
        "bias": zero,
        "hidden.0.bias": zero,
        "out.weight": zero,
    }
    term = Term("item", "item_id", "item", "row", "item", "item", "folded")
    tables, indexes = {"item": CodedRows(data, 8, 2)}, {"item": index}
    return RowTeller(Ranker(CompiledStudent(schema, 1, 1, (term,), tables, indexes, arrays, {}), use=kernel))
