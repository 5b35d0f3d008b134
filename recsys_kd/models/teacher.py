"""The large teacher: TorchRec tables whose optimizer runs inside backward, DCN-V2 crosses, an MLP, pairwise products.

One table per vocabulary; fields that share a vocabulary (an item and a history of items) share its rows. Histories are
mean-pooled. The loss never sees a dense gradient of a table: FBGEMM applies row-wise Adagrad to the touched rows only.
Sources: DCN-V2, arXiv 2008.13535 (low-rank crosses, parallel form); factorization machines, Rendle 2010.
"""

import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recsys_kd.batch import Batch
from recsys_kd.errors import InputError
from recsys_kd.models.features import Features
from recsys_kd.models.libraries import (
    EmbeddingBagConfig,
    FusedEmbeddingBagCollection,
    KeyedJaggedTensor,
    KeyedTensor,
    PoolingType,
    RowWiseAdagrad,
    WeightDecayMode,
)
from recsys_kd.models.names import key, plain
from recsys_kd.models.towers import CrossNetwork, mlp
from recsys_kd.schema import Field, Schema
from recsys_kd.settings import TeacherConfig

WEIGHTS, META = "weights.safetensors", "teacher.json"
_INIT_STD = 0.05


class RowOutOfTable(InputError):
    """A batch names a row that a table does not have: it was encoded by another data set."""


class NotATeacher(InputError):
    """A folder does not hold a teacher."""


def table_configs(schema: Schema, width: int) -> list[EmbeddingBagConfig]:
    """Return one table per vocabulary, serving every field that uses it.

    Rows are summed, and bags' means are taken of the sums: FBGEMM's own mean is half as fast, for single ids too.
    """
    users: dict[str, list[str]] = {}
    for field in schema.fields:
        if field.vocabulary is not None:
            users.setdefault(field.vocabulary, []).append(field.name)
    bound = _INIT_STD * 3**0.5
    return [
        EmbeddingBagConfig(
            name=key(name),
            embedding_dim=width,
            num_embeddings=schema.vocabularies[name].size,
            feature_names=fields,
            pooling=PoolingType.SUM,
            weight_init_min=-bound,
            weight_init_max=bound,
        )
        for name, fields in users.items()
    ]


def table_bytes(schema: Schema, config: TeacherConfig) -> int:
    """Return the bytes of all tables as they are stored."""
    return sum(4 * c.num_embeddings * c.embedding_dim for c in table_configs(schema, config.width))


def optimizer_settings(config: TeacherConfig) -> dict[str, Any]:
    """Return row-wise Adagrad's settings; `weight_decay` is the L2 regularizer of touched rows.

    Without the mode FBGEMM takes the weight decay and ignores it.
    """
    return {
        "lr": config.embedding_lr,
        "eps": 1e-8,
        "weight_decay": config.embedding_l2,
        "weight_decay_mode": WeightDecayMode.L2,
    }


def fused_tables(schema: Schema, config: TeacherConfig) -> FusedEmbeddingBagCollection:
    """Return tables for one process, their optimizer inside backward."""
    tables = FusedEmbeddingBagCollection(
        table_configs(schema, config.width),
        optimizer_type=RowWiseAdagrad,
        optimizer_kwargs=optimizer_settings(config),
        device=torch.device("cpu"),
    )
    for parameter in tables.state_dict().values():
        nn.init.normal_(parameter, std=_INIT_STD)
    return tables


def _check_rows(schema: Schema, field: Field, rows: NDArray[np.int64]) -> None:
    # FBGEMM's own check rewrites a bad row to row 0 with a warning: somebody else's vector.
    if len(rows) and (rows.min() < 0 or rows.max() >= schema.rows(field)):
        raise RowOutOfTable(f"field '{field.name}': row {rows.max()} in a table of {schema.rows(field)}; encode again")


class Teacher(nn.Module):
    """A `RankingModel`; `tables` may be fused (one process), or sharded by TorchRec (see `distil.distributed`)."""

    def __init__(self, schema: Schema, config: TeacherConfig, tables: nn.Module | None = None) -> None:
        super().__init__()
        self.schema, self.config = schema, config
        self.lookups = tuple(f for f in schema.fields if f.is_lookup)
        self.keys = [name for c in table_configs(schema, config.width) for name in c.feature_names]
        self.has_bags = any(f.kind == "bag" for f in self.lookups)
        self.vectors = nn.ModuleDict(
            {key(f.name): nn.Linear(f.dim, config.width) for f in schema.fields if f.kind == "vector"}
        )
        self.dense = tuple(f for f in schema.fields if f.kind == "dense")
        self.tables = fused_tables(schema, config) if tables is None else tables
        self.groups = len(self.keys) + len(self.vectors)
        size = self.groups * config.width + len(self.dense)
        self.cross = CrossNetwork(size, config.cross_layers, min(config.cross_rank, size))
        self.deep = mlp(size, config.hidden, config.dropout)
        self.out = nn.Linear(size + config.hidden[-1], 1)
        self.pair_scale = nn.Parameter(torch.ones(1))

    def dense_parameters(self) -> list[nn.Parameter]:
        """Return what an ordinary optimizer must train: everything but the tables."""
        inside = {id(p) for p in self.tables.parameters()}
        return [p for p in self.parameters() if id(p) not in inside]

    def moments(self) -> dict[str, Tensor]:
        """Return the live tensors that the optimizer inside backward keeps, by table; none where tables are sharded."""
        if not isinstance(self.tables, FusedEmbeddingBagCollection):
            return {}
        state = self.tables.fused_optimizer().state_dict()["state"]
        return {f"{table}.{name}": tensor for table, found in state.items() for name, tensor in found.items()}

    def lookup_input(self, batch: Batch) -> KeyedJaggedTensor:
        """Return the batch's rows per feature; while training, some ids use the fallback row so that it learns."""
        by_name = {f.name: f for f in self.lookups}
        values, lengths, ones = [], [], torch.ones(len(batch), dtype=torch.int64)
        for name in self.keys:
            field = by_name[name]
            bag = batch.bags.get(name)
            rows = batch.ids[name] if bag is None else bag.values
            _check_rows(self.schema, field, rows)
            tensor = torch.from_numpy(rows)
            if self.training and self.config.id_dropout > 0 and field.kind == "id":
                drop = torch.rand(len(tensor)) < self.config.id_dropout
                tensor = torch.where(drop, self.schema.rows(field) - 1, tensor)
            values.append(tensor)
            lengths.append(ones if bag is None else torch.from_numpy(np.diff(bag.offsets)))
        return KeyedJaggedTensor(keys=self.keys, values=torch.cat(values), lengths=torch.cat(lengths))

    def forward(self, rows: KeyedJaggedTensor, numbers: dict[str, Tensor]) -> Tensor:
        """Return logits [B] from looked-up rows and dense inputs [B, dim] by field."""
        pooled = self._pooled(rows, numbers)
        grouped = pooled.view(len(pooled), self.groups, self.config.width)
        pairs = 0.5 * (grouped.sum(1).square().sum(1) - grouped.square().sum((1, 2)))
        x = torch.cat([pooled, *(numbers[f.name] for f in self.dense)], dim=1)
        logit = self.out(torch.cat([self.cross(x), self.deep(x)], dim=1)).squeeze(1)
        out: Tensor = logit + self.pair_scale * pairs
        return out

    def _pooled(self, rows: KeyedJaggedTensor, numbers: dict[str, Tensor]) -> Tensor:
        """Return the embeddings of all lookups, then of all vectors [B, groups * width]."""
        found = self.tables(rows)
        # Sharded tables come back in the order of the ranks that hold them.
        in_order = list(found.keys()) == self.keys
        pooled: Tensor = found.values() if in_order else KeyedTensor.regroup([found], [self.keys])[0]
        if self.has_bags:
            count = rows.lengths().view(len(self.keys), -1).T.clamp_min(1)
            pooled = (pooled.view(*count.shape, self.config.width) / count.unsqueeze(2)).flatten(1)
        if not len(self.vectors):
            return pooled
        return torch.cat([pooled, *(layer(numbers[plain(k)]) for k, layer in self.vectors.items())], dim=1)

    @torch.no_grad()
    def features(self, batch: Batch) -> Features:
        """Return the last hidden layer and every field's pooled embedding, without dropout."""
        self.eval()
        numbers = self.numbers(batch)
        pooled = self._pooled(self.lookup_input(batch), numbers)
        hidden = self.deep(torch.cat([pooled, *(numbers[f.name] for f in self.dense)], dim=1))
        names = [*self.keys, *(plain(k) for k in self.vectors)]
        embeddings = pooled.view(len(pooled), self.groups, self.config.width).unbind(1)
        return Features(hidden, dict(zip(names, embeddings, strict=True)))

    def numbers(self, batch: Batch) -> dict[str, Tensor]:
        """Return the batch's dense and vector inputs as tensors."""
        return {name: torch.from_numpy(values) for name, values in batch.dense.items()}

    @torch.no_grad()
    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Return logits [B]."""
        self.eval()
        logits: NDArray[np.float32] = self(self.lookup_input(batch), self.numbers(batch)).numpy()
        return logits

    def state(self) -> dict[str, Tensor]:
        """Return all weights by name, whole tables as `tables.<vocabulary>`; the same whoever holds the tables."""
        out = {}
        for name, tensor in self.state_dict().items():
            out[plain_table_name(name)] = tensor.detach().clone().contiguous()
        return out

    def save(self, path: Path) -> str:
        """Write weights and settings to the folder `path`, whole or not at all; return the digest of both."""
        return save_teacher(path, self.schema, self.config, self.state())

    @staticmethod
    def load(path: Path) -> "Teacher":
        """Read a saved teacher. Raises: NotATeacher."""
        try:
            meta = json.loads((path / META).read_text())
            model = Teacher(Schema.from_json(meta["schema"]), TeacherConfig.model_validate(meta["config"]))
            model.load_state(load_file(path / WEIGHTS))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise NotATeacher(f"{path}: holds no teacher ({error}); train it again") from None
        return model.eval()

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy weights named as `state` names them into this model; RuntimeError where they don't fit."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[plain_table_name(name)])

    def bytes_in_memory(self) -> int:
        """Return the bytes of all weights, as they are stored."""
        return sum(t.numel() * t.element_size() for t in self.state().values())


def plain_table_name(name: str) -> str:
    """Return `tables.<vocabulary>` for a table's parameter, whichever TorchRec module holds it; other names as is."""
    if not name.startswith("tables."):
        return name
    return "tables." + plain(name.split("embedding_bags.")[1].removesuffix(".weight"))


def save_teacher(path: Path, schema: Schema, config: TeacherConfig, state: dict[str, Tensor]) -> str:
    """Write a teacher's folder, whole or not at all; return the SHA-256 over both files."""
    building = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    building.mkdir(parents=True)
    try:
        save_file(state, building / WEIGHTS)
        meta = {"schema": schema.to_json(), "config": config.model_dump(mode="json")}
        (building / META).write_text(json.dumps(meta, sort_keys=True))
        if path.exists():
            shutil.rmtree(path)
        Path(building).replace(path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return teacher_digest(path)


def teacher_digest(path: Path) -> str:
    """Return the SHA-256 over a saved teacher's files."""
    digest = hashlib.sha256()
    for name in (META, WEIGHTS):
        with (path / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
