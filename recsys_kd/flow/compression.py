"""The compress stage: budget -> rows -> folded, pruned, quantized artifact on disk."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_kd.artifact.manifest import Lineage
from recsys_kd.artifact.write import Artifact, bytes_on_disk, describe, write_artifact
from recsys_kd.compress.activations import ActivationChoice
from recsys_kd.compress.export import compile_student, quantized
from recsys_kd.compress.plan import CompressionPlan
from recsys_kd.data.dataset import Dataset
from recsys_kd.flow.calibrating import recalibrated
from recsys_kd.flow.goldens import golden_queries
from recsys_kd.flow.gradual import pruned_gradually
from recsys_kd.flow.probing import Coded, code, keys_of
from recsys_kd.flow.publication import same_artifact
from recsys_kd.flow.weighing import budget_of, fitting_plan, seen_days
from recsys_kd.models.student import Student
from recsys_kd.settings import CompressConfig
from recsys_kd.tables import CompiledStudent

Recover = Callable[[CompiledStudent], CompiledStudent]
"""Fits a pruned student, rows still float32, to its training rows once more."""


@dataclass(frozen=True)
class Compressed:
    """The student after each of its last steps: pruned, fitted again, as served; `plan` says which rows stayed."""

    pruned: CompiledStudent
    recovered: CompiledStudent
    served: CompiledStudent
    plan: CompressionPlan
    activations: ActivationChoice | None = None

    def summary(self) -> dict[str, Any]:
        """Return the plan, and how activations were chosen where they were, as stored in manifests."""
        chosen = {} if self.activations is None else {"activations": self.activations.to_manifest()}
        return self.plan.summary() | chosen


@dataclass(frozen=True)
class Pruned:
    """A pruned student, rows still float32, not yet calibrated, its plan, and the tables it was pruned from."""

    student: CompiledStudent
    plan: CompressionPlan
    coded: Coded


def prune(coded: Coded, dataset: Dataset, config: CompressConfig, budget: int | None) -> Pruned:
    """Return the student that fits the budget best. Raises: BadBudget."""
    plan = fitting_plan(coded, dataset, config, budget)
    return Pruned(compile_student(coded.folded, coded.tables, plan, keys_of(dataset)), plan, coded)


def finish(made: Pruned, dataset: Dataset, recover: Recover = lambda pruned: pruned, steps: int = 1) -> Compressed:
    """Return a pruned student calibrated, recovered and quantized; in several `steps` rows go one part after another.

    `pruned` is the student as all at once leaves it, so that the report tells what fits and steps gave together.
    """
    pruned = start = recalibrated(made.student, dataset)
    if steps > 1:
        start = recalibrated(pruned_gradually(made.coded, made.plan, keys_of(dataset), steps, recover), dataset)
    recovered = recover(start)
    again = pruned if recovered is pruned else recalibrated(recovered, dataset)
    return Compressed(pruned, again, recalibrated(quantized(recovered), dataset), made.plan)


def compress(
    student: Student,
    dataset: Dataset,
    config: CompressConfig,
    teacher_bytes: int,
    recover: Recover = lambda pruned: pruned,
) -> Compressed:
    """Return the student pruned to the budget, recovered and quantized. Raises: BadBudget."""
    coded = code(student, dataset, config)
    made = prune(coded, dataset, config, budget_of(config, teacher_bytes))
    return finish(made, dataset, recover, config.recovery.steps)


def publish_artifact(
    store: Path,
    model: str,
    compressed: Compressed,
    dataset: Dataset,
    digests: dict[str, str],
    parents: list[str],
) -> Artifact:
    """Write the artifact of a night, or return the same one that is there; `digests` names data, recipe and teacher."""
    lineage, golden = _lineage(model, compressed, dataset, digests, parents), golden_queries(compressed.served, dataset)
    there = same_artifact(store, describe(compressed.served, lineage, golden)[0])
    return there or write_artifact(store, model, compressed.served, lineage, golden)


def artifact_bytes(
    model: str, compressed: Compressed, dataset: Dataset, digests: dict[str, str], parents: list[str]
) -> int:
    """Return what the artifact of `publish_artifact` would take on disk."""
    lineage = _lineage(model, compressed, dataset, digests, parents)
    manifest, weights = describe(compressed.served, lineage, golden_queries(compressed.served, dataset))
    return bytes_on_disk(manifest, len(weights))


def _lineage(
    model: str, compressed: Compressed, dataset: Dataset, digests: dict[str, str], parents: list[str]
) -> Lineage:
    return Lineage(
        model,
        dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        digests["data"],
        digests["recipe"],
        digests["teacher"],
        parents,
        compressed.summary(),
        seen=seen_days(dataset),
    )
