"""What else makes a student smaller, implemented plainly: fewer numbers, shared rows, other number formats.

None of them has a teacher. `hashing`: id mod m. `quotient-remainder`: the product of a row of id mod m and one of
id // m (Shi et al., arXiv 1909.02107; the linear weights are added). Number formats are applied to the trained
student's own tables, FBGEMM's by FBGEMM's own operators; bytes are those of rows, scales and float32 arrays, without
any index or manifest, which ours pays for.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from recsys_kd.batch import Batch
from recsys_kd.data.dataset import Dataset
from recsys_kd.distil.batch_size import batch_rows
from recsys_kd.distil.loop import train, validation_metrics
from recsys_kd.distil.losses import hard_bce
from recsys_kd.distil.objective import shuffled
from recsys_kd.models.gradients import descend, is_sparse
from recsys_kd.models.names import key
from recsys_kd.models.student import Student
from recsys_kd.progress import SILENT
from recsys_kd.schema import Field
from recsys_kd.settings import StudentConfig

_SMALL = 64
"""Vocabularies no larger keep a row per id: there is nothing to save."""


class Shared(Student):
    """A student whose large tables have `share` of their rows, found by id mod m, and by id // m too if `both`."""

    def __init__(self, schema, config: StudentConfig, share: float, both: bool) -> None:
        super().__init__(schema, config)
        self.both, self.rows_of = both, {}
        self.quotients = nn.ParameterDict()
        for name, vocabulary in schema.vocabularies.items():
            if vocabulary.size > _SMALL:
                rows = max(2, int(share * vocabulary.size))
                # Of two tables with as many numbers in all, the remainders' gets the most: m + n / m rows.
                m = max(2, rows - vocabulary.size // rows - 1) if both else rows
                self.rows_of[name] = m
                self.tables[key(name)] = nn.Parameter(self.tables[key(name)].detach()[:m].clone())
                if both:
                    count = vocabulary.size // m + 1
                    other = torch.cat([torch.ones(count, config.width), torch.zeros(count, 1)], dim=1)
                    self.quotients[key(name)] = nn.Parameter(other)

    def _lookup(self, field: Field, batch: Batch) -> Tensor:
        name = field.vocabulary or ""
        if name not in self.rows_of:
            return super()._lookup(field, batch)
        bag = batch.bags[field.name] if field.kind == "bag" else None
        ids = torch.from_numpy(batch.ids[field.name] if bag is None else bag.values)
        ids = self._dropped(ids, self.schema.rows(field) - 1)
        rows = _rows(ids % self.rows_of[name], self.tables[key(name)])
        if self.both:
            other = _rows(ids // self.rows_of[name], self.quotients[key(name)])
            d = self.width
            rows = torch.cat([rows[:, :d] * other[:, :d], rows[:, d:] + other[:, d:]], dim=1)
        if bag is None:
            return rows
        lengths = torch.from_numpy(np.diff(bag.offsets))
        sums = torch.zeros(len(lengths), rows.shape[1]).index_add(
            0, torch.repeat_interleave(torch.arange(len(lengths)), lengths), rows
        )
        return sums / lengths.clamp(min=1)[:, None]


def _rows(ids: Tensor, table: Tensor) -> Tensor:
    return nn.functional.embedding(ids, table, sparse=is_sparse(table))


def fitted(model: Student, dataset: Dataset, config: StudentConfig, seed: int) -> Student:
    """Train a student by labels alone, as the control is trained."""
    torch.manual_seed(seed)
    large = [table for table in tables_of(model) if is_sparse(table)]
    inside = {id(p) for p in large}
    optimizers = [torch.optim.Adam([p for p in model.parameters() if id(p) not in inside], lr=config.lr, fused=True)]
    if large:
        optimizers.append(torch.optim.SparseAdam(large, lr=config.lr))
    rows, size = dataset.splits["train"], batch_rows(config.batch_size, len(dataset))

    def step(batch: Batch) -> float:
        model.train()
        logits = model(batch)
        loss = hard_bce(logits.serving, torch.from_numpy(batch.label), torch.from_numpy(batch.weight))
        loss = loss + config.embedding_l2 * logits.penalty
        descend(loss, optimizers)
        return float(loss.detach())

    def batches(epoch: int, skip: int):
        for index in shuffled(np.arange(rows.start, rows.stop), size, seed * 1000 + epoch, None):
            yield dataset.batch(index)

    train(
        model, step, batches, lambda: validation_metrics(model, dataset, dataset.splits["validation"]),
        epochs=config.epochs, patience=config.patience, rows=len(rows), progress=SILENT, name="peer",
    )  # fmt: skip
    return model


def tables_of(model: Student) -> list[Tensor]:
    """Return everything that is looked up."""
    return [*model.tables.parameters(), *getattr(model, "quotients", nn.ParameterDict()).parameters()]


def dense_bytes(model: Student) -> int:
    """Return the bytes of all else that serves, float32; the auxiliary head is not served."""
    inside = {id(p) for p in tables_of(model)}
    served = [p for n, p in model.named_parameters() if id(p) not in inside and not n.startswith("auxiliary")]
    return 4 * sum(p.numel() for p in served)


def float_bytes(model: Student) -> int:
    """Return a student's bytes in float32."""
    return 4 * sum(p.numel() for p in tables_of(model)) + dense_bytes(model)


def half(table: Tensor) -> tuple[Tensor, int]:
    """Return a table rounded to float16, and its bytes."""
    return table.half().float(), 2 * table.numel()


def fbgemm8(table: Tensor) -> tuple[Tensor, int]:
    """Return a table through FBGEMM's row-wise 8 bits (what torchrec.quant stores), and its bytes."""
    coded = torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized(table.contiguous())
    return torch.ops.fbgemm.Fused8BitRowwiseQuantizedToFloat(coded), coded.numel()


def fbgemm4(table: Tensor) -> tuple[Tensor, int]:
    """Return a table through FBGEMM's row-wise 4 bits with half-precision scale and offset, and its bytes."""
    even = nn.functional.pad(table, (0, -table.shape[1] % 4))  # it takes whole pairs of bytes only
    coded = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(even.contiguous(), 4)
    return torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat(coded, 4)[:, : table.shape[1]], coded.numel()


def in_format(model: Student, code: Callable[[Tensor], tuple[Tensor, int]]) -> tuple[Student, int]:
    """Return a student whose tables went through a number format, and its bytes."""
    other = Student(model.schema, StudentConfig(width=model.width, hidden=model.hidden))
    state, size = model.state_dict(), dense_bytes(model)
    for name in list(state):
        if name.startswith("tables."):
            state[name], more = code(state[name])
            size += more
    other.load_state_dict(state)
    return other.eval(), size
