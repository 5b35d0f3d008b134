"""Where a training stands, on disk: a killed one goes on from its last checkpoint and comes to the very same model.

A checkpoint is one safetensors file, whole or not at all, named by its number and the SHA-256 of its bytes. One whose
bytes are not those of its name is thrown away, and the one before it is used. Nothing is pickled.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

EVERY_SECONDS = 300.0
_KEPT = 2
_FACTS = "facts"
_SUFFIX = ".safetensors"


@dataclass
class Checkpoints:
    """The checkpoints of one training, in a folder of their own; `every` seconds at least lie between two."""

    folder: Path
    every: float = EVERY_SECONDS
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Return whether it is time for the next one."""
        return time.monotonic() - self._last >= self.every

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint of tensors and of facts that JSON can hold; older ones but the last are removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self._found()
        number = int(found[-1].name.split("-")[0]) + 1 if found else 0
        building = self.folder / f".{number}"
        # The format refuses tensors that share memory, as tables inside one buffer do.
        save_file({name: t.detach().clone() for name, t in tensors.items()}, building, {_FACTS: json.dumps(facts)})
        with building.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        building.replace(self.folder / f"{number:08d}-{digest}{_SUFFIX}")
        for old in found[: len(found) + 1 - _KEPT]:
            old.unlink()
        self._last = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and facts of the latest whole checkpoint, None where there is none."""
        for path in reversed(self._found()):
            with path.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == path.stem.split("-")[1]
            if whole:
                return _read(path)
            path.unlink()
        return None

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob(f"[0-9]*-*{_SUFFIX}"))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()[_FACTS])
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - it is no dict


@dataclass(frozen=True)
class Resume:
    """What a training needs to go on later: where, and all that changes with a step beside the model's own state.

    tensors: live tensors by name that are written in place, such as the moments of an optimizer inside backward.
    """

    checkpoints: Checkpoints
    optimizers: Sequence[torch.optim.Optimizer]
    tensors: Callable[[], Mapping[str, Tensor]] = dict

    def state(self) -> dict[str, Tensor]:
        """Return optimizers' state, the live tensors and the random generator's state, by name."""
        out = {f"live.{name}": tensor for name, tensor in self.tensors().items()}
        out |= {f"optimizer.{name}": tensor for name, tensor in optimizer_state(self.optimizers).items()}
        return out | {"random": torch.get_rng_state()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Write what `state` returned back."""
        for name, live in self.tensors().items():
            live.copy_(tensors[f"live.{name}"])
        restore_optimizers(self.optimizers, part(tensors, "optimizer."))
        torch.set_rng_state(tensors["random"])


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimizer_state(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return the moments and step counts of optimizers as tensors by name, `<optimizer>.<parameter>.<state>`."""
    return {
        f"{number}.{index}.{name}": torch.as_tensor(value)
        for number, optimizer in enumerate(optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizers(optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Write what `optimizer_state` returned back into optimizers of the same parameters; rates stay as they are."""
    for number, optimizer in enumerate(optimizers):
        states: dict[int, dict[str, Any]] = {}
        for key, tensor in tensors.items():
            owner, index, name = key.split(".", 2)
            if int(owner) == number:
                # Adam counts its steps in a tensor, its lazy form in an int.
                whole = isinstance(optimizer, torch.optim.SparseAdam) and name == "step"
                states.setdefault(int(index), {})[name] = int(tensor) if whole else tensor
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def resumed(name: str, done: int, row: int, over: bool) -> str:
    """Return in words where a training of so many whole epochs stands, and a row of the next one."""
    if over:
        return f"{name}: nothing is left to do: a checkpoint holds all of its {done} epoch(s)"
    return f"{name}: goes on from a checkpoint, in epoch {done + 1} at row {row:,}"
