"""The compact student: a factorization machine plus a small MLP whose first layer is a sum over fields.

W [e1; e2; ..] = sum_f W_f e_f, and sum_{i<j} e_i . e_j = (|S|^2 - sum_f |e_f|^2) / 2 with S = sum_f e_f, so everything
a field adds can later be folded into one table row (see `recsys_kd.tables.CompiledStudent`).
Two heads share the body: the serving head learns the labels, the auxiliary head the teacher's soft labels, which keeps
the served probability calibrated (arXiv 2408.14678). Once trained, the serving head may take the auxiliary one in.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys_kd.batch import Batch
from recsys_kd.models.features import Features
from recsys_kd.models.gradients import is_sparse, side_by_side
from recsys_kd.models.names import key, plain
from recsys_kd.schema import Field, Schema
from recsys_kd.settings import StudentConfig
from recsys_kd.tables import StudentWeights


class Logits(NamedTuple):
    """Both heads' logits [B], and what else training looks at.

    penalty: the mean squared norm of the looked-up rows, for the regularizer. features: what hints are held to.
    """

    serving: Tensor
    auxiliary: Tensor
    penalty: Tensor
    features: Features


class _Sums(NamedTuple):
    hidden: Tensor
    factors: Tensor
    linear: Tensor
    penalty: Tensor
    embeddings: dict[str, Tensor]


class Student(nn.Module):
    """A `RankingModel` of `width` embeddings per id; tables hold [embedding, linear weight] per row."""

    def __init__(self, schema: Schema, config: StudentConfig) -> None:
        super().__init__()
        self.schema = schema
        self.width = config.width
        self.hidden = tuple(config.hidden)
        self.id_dropout = config.id_dropout
        self.lookups = tuple(f for f in schema.fields if f.is_lookup)
        self.vectors = tuple(f for f in schema.fields if f.kind == "vector")
        self.dense = tuple(f for f in schema.fields if f.kind == "dense")
        d, first = config.width, config.hidden[0]
        self.tables = nn.ParameterDict()
        for name, vocabulary in schema.vocabularies.items():
            table = torch.randn(vocabulary.size, d + 1) * 0.05
            table[:, d] = 0.0
            self.tables[key(name)] = nn.Parameter(table)
        self.first = nn.ParameterDict()
        self.linear = nn.ParameterDict()
        self.project = nn.ParameterDict()
        fan_in = sum(d if f.is_lookup or f.kind == "vector" else 1 for f in schema.fields)
        for field in schema.fields:
            self._add_field(field, d, first, fan_in)
        self.first_bias = nn.Parameter(torch.zeros(first))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(self.hidden, self.hidden[1:], strict=False))
        self.serving_head = nn.Linear(self.hidden[-1], 1)
        self.auxiliary_head = nn.Linear(self.hidden[-1], 1)
        self.auxiliary_scale = nn.Parameter(torch.ones(1))

    @torch.no_grad()
    def start_from(self, embeddings: Mapping[str, NDArray[np.float32]]) -> None:
        """Take over the first numbers of every row [rows, k], by vocabulary; others stay as they are."""
        for name, rows in embeddings.items():
            self.tables[key(name)][:, : rows.shape[1]] = torch.from_numpy(rows)

    @property
    def wide_scale(self) -> float:
        """How often the auxiliary head counts the wide part; the serving head counts it once."""
        return float(self.auxiliary_scale.detach())

    @torch.no_grad()
    def mix_heads(self, serving: float, auxiliary: float) -> None:
        """Let the serving head's logit be serving * its own + auxiliary * the other head's, but for its slope.

        The wide part counts once in what is served, so the mix is divided by how often it would count; Platt scaling
        puts the slope right. Shares are at least 0, and such that the wide part counts.
        """
        scale = serving + auxiliary * self.wide_scale
        for mine, other in zip(self.serving_head.parameters(), self.auxiliary_head.parameters(), strict=True):
            mine.copy_((serving * mine + auxiliary * other) / scale)

    def _add_field(self, field: Field, d: int, first: int, fan_in: int) -> None:
        columns = d if field.is_lookup or field.kind == "vector" else field.dim
        self.first[key(field.name)] = nn.Parameter(torch.randn(first, columns) * (2.0 / fan_in) ** 0.5)
        if not field.is_lookup:
            self.linear[key(field.name)] = nn.Parameter(torch.zeros(field.dim))
        if field.kind == "vector":
            self.project[key(field.name)] = nn.Parameter(torch.randn(d, field.dim) * (0.05 / field.dim**0.5))

    def _dropped(self, ids: Tensor, fallback: int) -> Tensor:
        if not self.training or self.id_dropout == 0:
            return ids
        return torch.where(torch.rand(ids.shape) < self.id_dropout, fallback, ids)

    def _lookup(self, field: Field, batch: Batch) -> Tensor:
        """Return a field's rows [B, d + 1]: embedding and linear weight."""
        table = self.tables[key(field.vocabulary or "")]
        fallback = self.schema.rows(field) - 1
        if field.kind != "bag":
            ids = torch.from_numpy(batch.ids[field.name])
            return nn.functional.embedding(self._dropped(ids, fallback), table, sparse=is_sparse(table))
        bag = batch.bags[field.name]
        values, offsets = self._dropped(torch.from_numpy(bag.values), fallback), torch.from_numpy(bag.offsets)
        return nn.functional.embedding_bag(
            values, table, offsets, mode="mean", sparse=is_sparse(table), include_last_offset=True
        )

    def _projected(self, field: Field, batch: Batch) -> Tensor:
        """Return a vector field's [embedding, linear part], [B, d + 1]."""
        x, name = torch.from_numpy(batch.dense[field.name]), key(field.name)
        return x @ torch.cat([self.project[name], self.linear[name][None]]).T

    def _sums(self, batch: Batch) -> _Sums:
        # All fields side by side, [B, fields, d + 1]: a few large operations instead of ten small ones per field.
        parts = [self._lookup(f, batch) for f in self.lookups] + [self._projected(f, batch) for f in self.vectors]
        rows = torch.stack(parts, dim=1) if parts else torch.zeros(len(batch), 0, self.width + 1)
        hidden, sums, squares = side_by_side(rows, self._first(), self.first_bias)
        looked_up = rows[:, : len(self.lookups)].square().sum(1) if self.vectors else squares
        linear = sums[:, -1]
        for field in self.dense:
            x = torch.from_numpy(batch.dense[field.name])
            hidden = hidden + x @ self.first[key(field.name)].T
            linear = linear + x @ self.linear[key(field.name)]
        embeddings = {f.name: rows[:, i, :-1] for i, f in enumerate(self.lookups + self.vectors)}
        linear = linear - 0.5 * squares[:, :-1].sum(1)
        return _Sums(hidden, sums[:, :-1], linear, looked_up.sum() / len(batch), embeddings)

    def _first(self) -> Tensor:
        """Return the first layer over rows side by side [first, fields * (d + 1)]; linear weights don't enter it."""
        blocks = [self.first[key(f.name)] for f in self.lookups + self.vectors]
        return torch.cat([nn.functional.pad(w, (0, 1)) for w in blocks] or [torch.zeros(self.hidden[0], 0)], dim=1)

    def forward(self, batch: Batch) -> Logits:
        """Return both heads' logits."""
        sums = self._sums(batch)
        wide = sums.linear + 0.5 * sums.factors.square().sum(1)
        x = torch.relu(sums.hidden)
        for layer in self.layers:
            x = torch.relu(layer(x))
        serving = wide + self.serving_head(x).squeeze(1)
        auxiliary = self.auxiliary_scale * wide + self.auxiliary_head(x).squeeze(1)
        return Logits(serving, auxiliary, sums.penalty, Features(x, sums.embeddings))

    @torch.no_grad()
    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Return the serving head's logits [B]."""
        self.eval()
        logits: NDArray[np.float32] = self(batch).serving.numpy()
        return logits

    @torch.no_grad()
    def weights(self) -> StudentWeights:
        """Return the serving part as NumPy: what compression works on. The auxiliary head stays behind."""
        arrays: dict[str, Tensor] = {
            "bias": self.serving_head.bias,
            "hidden.0.bias": self.first_bias,
            "out.weight": self.serving_head.weight[0],
        }
        for i, layer in enumerate(self.layers, start=1):
            arrays |= {f"hidden.{i}.{n}": p for n, p in layer.named_parameters()}
        for group, parameters in (("first", self.first), ("linear", self.linear), ("project", self.project)):
            arrays |= {f"{group}.{plain(name)}": parameter for name, parameter in parameters.items()}
        return StudentWeights(
            self.schema,
            self.width,
            self.hidden[0],
            {plain(name): table.detach().numpy().copy() for name, table in self.tables.items()},
            {name: array.detach().numpy().copy() for name, array in arrays.items()},
        )
