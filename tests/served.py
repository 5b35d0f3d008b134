"""A small served student, for tests of everything behind training."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from recsys_kd.artifact.manifest import Lineage
from recsys_kd.artifact.write import Artifact, write_artifact
from recsys_kd.compress.activations import ActivationChoice
from recsys_kd.data.dataset import Dataset
from recsys_kd.flow.compression import Compressed, compress
from recsys_kd.flow.goldens import golden_queries
from recsys_kd.models.student import Student
from recsys_kd.settings import CompressConfig, StudentConfig

LINEAGE = Lineage("shop", "2026-01-01T00:00:00+00:00", "d" * 64, "r" * 64, "t" * 64, ["p" * 64])


def random_student(dataset: Dataset, seed: int = 0) -> Student:
    """Return a student with weights of a sensible size, as if trained."""
    torch.manual_seed(seed)
    model = Student(dataset.schema, StudentConfig(width=4, hidden=(8, 4)))
    with torch.no_grad():
        for table in model.tables.values():
            table.normal_(std=0.3)
        for linear in model.linear.values():
            linear.normal_(std=0.3)
    return model.eval()


def compressed(dataset: Dataset, model: Student, **config: object) -> Compressed:
    return compress(model, dataset, CompressConfig.model_validate(config), 0)


def artifact(dataset: Dataset, store: Path, seed: int = 0, **config: object) -> Artifact:
    made = compressed(dataset, random_student(dataset, seed), **config)
    made = dataclasses.replace(made, activations=ActivationChoice("float32", "as a night would", {"15": 0.0}))
    golden = golden_queries(made.served, dataset)
    return write_artifact(store, "shop", made.served, dataclasses.replace(LINEAGE, plan=made.summary()), golden)


def head(dataset: Dataset, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return the first test rows and their item rows."""
    start = dataset.splits["test"].start
    index = np.arange(start, start + rows)
    return index, dataset.column("item")[index].astype(np.int64)
