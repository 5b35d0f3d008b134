"""Train a teacher on several processes: `torchrun --nproc-per-node 2 -m recsys_kd.distil.distributed ROWS OUT CONFIG`.

The same `Teacher` and the same loop as on one process; TorchRec's `DistributedModelParallel` shards the tables and
keeps the dense parts equal on all ranks. gloo on CPU. ROWS names what opens the rows, such as
`recsys_kd.data.dataset:Dataset.open:FOLDER`, so that this room need not know who holds them; CONFIG is a teacher's
settings as JSON. Rank 0 writes the same folder that a teacher trained on one process has.
"""

import gc
import importlib
import json
import sys
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from recsys_kd.batch import Batch
from recsys_kd.distil.batch_size import batch_rows
from recsys_kd.distil.loop import Fit, train, validation_metrics
from recsys_kd.distil.teacher_training import TeacherStep
from recsys_kd.models.libraries import (
    DistributedModelParallel,
    EmbeddingBagCollection,
    EmbeddingBagCollectionSharder,
    EmbeddingShardingPlanner,
    EmbOptimType,
    ParameterConstraints,
    Topology,
)
from recsys_kd.models.names import key
from recsys_kd.models.source import RowSource
from recsys_kd.models.teacher import Teacher, optimizer_settings, plain_table_name, save_teacher, table_configs
from recsys_kd.progress import SILENT
from recsys_kd.schema import Schema
from recsys_kd.settings import TeacherConfig


class ShardedTeacher(nn.Module):
    """A teacher whose tables are spread over the ranks; every rank must call it the same number of times."""

    def __init__(self, schema: Schema, config: TeacherConfig) -> None:
        super().__init__()
        self.schema = schema
        tables = EmbeddingBagCollection(device=torch.device("meta"), tables=table_configs(schema, config.width))
        self.inner = Teacher(schema, config, tables)
        settings = optimizer_settings(config)
        fused = {"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "learning_rate": settings.pop("lr"), **settings}
        sharder = EmbeddingBagCollectionSharder(fused_params=fused)
        # Left to itself the planner gives small tables a dense kernel, whose optimizer is not inside backward.
        fixed = ParameterConstraints(sharding_types=["table_wise"], compute_kernels=["fused"])
        planner = EmbeddingShardingPlanner(
            topology=Topology(world_size=dist.get_world_size(), compute_device="cpu"),
            constraints=dict.fromkeys(map(key, schema.vocabularies), fixed),
        )
        plan = planner.collective_plan(self.inner, [sharder], dist.GroupMember.WORLD)
        self.parallel = DistributedModelParallel(self.inner, device=torch.device("cpu"), plan=plan, sharders=[sharder])

    @torch.no_grad()
    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Return logits [B]; a collective call."""
        self.eval()
        logits: NDArray[np.float32] = self.parallel(self.inner.lookup_input(batch), self.inner.numbers(batch)).numpy()
        return logits

    def whole_state(self) -> dict[str, Tensor]:
        """Return all weights on rank 0, named as `Teacher.state` names them; a collective call."""
        out = {}
        for name, value in self.parallel.state_dict().items():
            if isinstance(value, ShardedTensor):
                whole = torch.zeros(value.size()) if dist.get_rank() == 0 else None
                value.gather(0, whole)
                value = whole if whole is not None else torch.zeros(0)
            out[plain_table_name(name.removeprefix("module."))] = value.detach().clone().contiguous()
        return out


def fit_distributed(
    source: RowSource, config: TeacherConfig, rows: range, validation: range, seed: int
) -> tuple[ShardedTeacher, Fit]:
    """Train on all ranks; the process group must be initialized."""
    torch.manual_seed(seed)
    rank, world = dist.get_rank(), dist.get_world_size()
    model = ShardedTeacher(source.schema, config)
    step = TeacherStep(model.inner, config, model.parallel)
    # Shares may differ by a row, and so by a batch: a rank with one batch more would wait for the others for ever.
    size = batch_rows(config.batch_size, len(source))
    steps = max(1, len(rows) // world // size)

    def batches(epoch: int, skip: int) -> Iterator[Batch]:
        return islice(source.batches(rows, size, seed * 1000 + epoch, rank, world), skip, steps)

    fit = train(
        model,
        step,
        batches,
        lambda: validation_metrics(model, source, validation),
        epochs=config.epochs,
        patience=config.patience,
        rows=steps * size,
        progress=SILENT,
        name=f"teacher, rank {rank}",
    )
    return model, fit


def _rows(text: str) -> RowSource:
    module, function, argument = text.split(":", 2)
    source: RowSource = attrgetter(function)(importlib.import_module(module))(Path(argument))
    return source


def main(rows: str, out: str, settings: str) -> None:
    """Run on this rank and leave cleanly."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    source, config = _rows(rows), TeacherConfig.model_validate_json(settings)
    splits: dict[str, range] = source.splits  # type: ignore[attr-defined]
    model, fit = fit_distributed(source, config, splits["train"], splits["validation"], 7)
    state = model.whole_state()
    if dist.get_rank() == 0:
        save_teacher(Path(out), source.schema, config, state)
        print(json.dumps({"validation_auc": fit.epochs[fit.best].validation_auc, "epochs": len(fit.epochs)}))
    # The model holds process groups of its own: it must be gone, on every rank, before the group is destroyed.
    del model, state
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
