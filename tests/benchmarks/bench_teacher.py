"""Training speed of the teacher's tables beside what most libraries do, in one run.

200k users, 1M items, width 64, MLP 256-128, batch 4096, 2 threads. Same rows, same MLP, same loss for all; the floor is
the MLP alone on a fixed input, with and without the gradient to that input.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys_kd.models.teacher import fused_tables
from recsys_kd.models.towers import mlp
from recsys_kd.schema import Field, Schema, Vocabulary
from recsys_kd.settings import TeacherConfig
from tests.benchmarks.table import show

USERS, ITEMS, WIDTH, BATCH = 200_000, 1_000_000, 64, 4096
_ROUNDS, _PER_ROUND, _WARM = 12, 10, 4
SCHEMA = Schema(
    (Field("user_id", "id", "request", "user_id"), Field("item_id", "id", "item", "item_id")),
    {"user_id": Vocabulary("user_id", USERS, "int64"), "item_id": Vocabulary("item_id", ITEMS, "int64")},
)


def batches(count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return (users, items, labels) that can be learned: some users like some items."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(count):
        user, item = rng.zipf(1.2, BATCH) % USERS, rng.zipf(1.2, BATCH) % ITEMS
        label = ((user + item) % 2).astype(np.float32)
        out.append(tuple(torch.from_numpy(x) for x in (user, item, label)))
    return out


def head() -> nn.Module:
    """Return the MLP that all share, from the same seed."""
    torch.manual_seed(0)
    return nn.Sequential(mlp(2 * WIDTH, (256, 128), 0.0), nn.Linear(128, 1))


def loss_of(model: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    """Return the loss of one batch."""
    return nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(1), label)


def ours() -> Callable[[Tensor, Tensor, Tensor], float]:
    """As the teacher is trained: TorchRec tables, row-wise Adagrad inside backward; fused Adam for the rest."""
    tables, top = fused_tables(SCHEMA, TeacherConfig(width=WIDTH, embedding_l2=0.0)), head()
    optimizer = torch.optim.Adam(top.parameters(), fused=True)
    lengths = torch.ones(2 * BATCH, dtype=torch.int64)

    def step(user: Tensor, item: Tensor, label: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        rows = KeyedJaggedTensor(["user_id", "item_id"], torch.cat([user, item]), lengths=lengths)
        loss = loss_of(top, tables(rows).values(), label)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def plain(sparse: bool) -> Callable[[Tensor, Tensor, Tensor], float]:
    """nn.Embedding with dense Adam, or sparse gradients and SparseAdam."""
    tables = [nn.Embedding(n, WIDTH, sparse=sparse) for n in (USERS, ITEMS)]
    for table in tables:
        nn.init.normal_(table.weight, std=0.05)
    top = head()
    weights = [t.weight for t in tables]
    optimizers = [torch.optim.Adam(top.parameters())]
    optimizers.append(torch.optim.SparseAdam(weights) if sparse else torch.optim.Adam(weights))

    def step(user: Tensor, item: Tensor, label: Tensor) -> float:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = loss_of(top, torch.cat([tables[0](user), tables[1](item)], dim=1), label)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return float(loss.detach())

    return step


def floor(inside: bool) -> Callable[[Tensor, Tensor, Tensor], float]:
    """The MLP alone; `inside` a model it also computes its input's gradient, which tables wait for."""
    top, x = head(), torch.randn(BATCH, 2 * WIDTH, requires_grad=inside)
    optimizer = torch.optim.Adam(top.parameters())

    def step(user: Tensor, item: Tensor, label: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        x.grad = None
        loss = loss_of(top, x, label)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


@dataclass
class Measured:
    """One way to train: its step, seconds per batch in each round, and every loss."""

    step: Callable[[Tensor, Tensor, Tensor], float]
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def round(self, data: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Train on some batches, timed."""
        start = time.perf_counter()
        self.losses += [self.step(*batch) for batch in data]
        self.seconds.append((time.perf_counter() - start) / len(data))

    @property
    def speed(self) -> float:
        """Rows per second in the middle round: the machine is not always ours alone."""
        return BATCH / float(np.median(self.seconds))


def run() -> list[dict[str, object]]:
    """Return a row per way to train; they take turns, so that all of them see the same machine."""
    torch.set_num_threads(2)
    ways = {
        "nn.Embedding, dense Adam": Measured(plain(False)),
        "nn.Embedding, SparseAdam": Measured(plain(True)),
        "ours: fused row-wise Adagrad": Measured(ours()),
        "the MLP alone, gradient to its input": Measured(floor(True)),
        "the MLP alone, none": Measured(floor(False)),
    }
    data = batches(_ROUNDS * _PER_ROUND + _WARM)
    for name, way in ways.items():
        for batch in data[:_WARM] if name != "nn.Embedding, dense Adam" else data[:1]:
            way.losses.append(way.step(*batch))
    for start in range(_WARM, len(data), _PER_ROUND):
        for name, way in ways.items():
            count = _PER_ROUND if name != "nn.Embedding, dense Adam" else 1
            way.round(data[start : start + count])
    mine = ways["ours: fused row-wise Adagrad"]
    assert np.mean(mine.losses[-5:]) < mine.losses[0], "the loss did not go down"
    return [
        {
            "how": name,
            "rows/s": f"{way.speed:,.0f}",
            "ours / this": f"{mine.speed / way.speed:.2f}",
            "first loss": f"{way.losses[0]:.4f}",
            "last losses": f"{float(np.mean(way.losses[-5:])):.4f}",
        }
        for name, way in ways.items()
    ]


def main() -> None:
    """Print the table."""
    show("teacher-speed", run())


if __name__ == "__main__":
    main()
