"""Training speed of the teacher's tables beside what most libraries do, in one run.

200k users, 1M items, width 64, MLP 256-128, batch 4096, 2 threads. Same rows, same MLP, same loss for all; the floor is
the MLP alone on a fixed input.
"""

import time
from collections.abc import Callable

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
    """TorchRec tables, row-wise Adagrad inside backward."""
    tables, top = fused_tables(SCHEMA, TeacherConfig(width=WIDTH, embedding_l2=0.0)), head()
    optimizer = torch.optim.Adam(top.parameters())
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


def floor() -> Callable[[Tensor, Tensor, Tensor], float]:
    """The MLP alone."""
    top, x = head(), torch.randn(BATCH, 2 * WIDTH)
    optimizer = torch.optim.Adam(top.parameters())

    def step(user: Tensor, item: Tensor, label: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(top, x, label)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def measure(
    step: Callable[[Tensor, Tensor, Tensor], float], data: list[tuple[Tensor, Tensor, Tensor]]
) -> tuple[float, float, float]:
    """Return rows per second, the first loss and the mean of the last five."""
    losses = [step(*data[0]), step(*data[1])]
    start = time.perf_counter()
    losses += [step(*batch) for batch in data[2:]]
    return (len(data) - 2) * BATCH / (time.perf_counter() - start), losses[0], float(np.mean(losses[-5:]))


def run() -> list[dict[str, object]]:
    """Return a row per way to train."""
    torch.set_num_threads(2)
    many, few = batches(120), batches(12)
    ways = {
        "nn.Embedding, dense Adam": (lambda: plain(False), few),
        "nn.Embedding, SparseAdam": (lambda: plain(True), many),
        "ours: fused row-wise Adagrad": (ours, many),
        "the MLP alone": (floor, many),
    }
    found = {name: measure(make(), data) for name, (make, data) in ways.items()}
    mine = found["ours: fused row-wise Adagrad"]
    assert mine[2] < mine[1], "the loss did not go down"
    return [
        {
            "how": name,
            "rows/s": f"{speed:,.0f}",
            "ours / this": f"{mine[0] / speed:.2f}",
            "first loss": f"{first:.4f}",
            "last losses": f"{last:.4f}",
        }
        for name, (speed, first, last) in found.items()
    ]


def main() -> None:
    """Print the table."""
    show("teacher-speed", run())


if __name__ == "__main__":
    main()
