"""Everything that a night's report shows, gathered from its stages."""

import json
import math
import platform
from importlib.metadata import version
from typing import Any

from recsys_kd.artifact.write import Artifact
from recsys_kd.data.dataset import Dataset
from recsys_kd.evaluate.evaluation import Evaluation
from recsys_kd.evaluate.gate import Verdict
from recsys_kd.evaluate.report import Report, Size
from recsys_kd.flow import compression, models
from recsys_kd.flow.budget import emptied
from recsys_kd.flow.cache import Stages
from recsys_kd.flow.decidable import soft_labels
from recsys_kd.flow.training import Trained, student_of
from recsys_kd.settings import Recipe


def build_report(  # noqa: PLR0913 - it gathers a whole night
    recipe: Recipe,
    dataset: Dataset,
    trained: Trained,
    compressed: compression.Compressed,
    artifact: Artifact,
    evaluation: Evaluation,
    verdict: Verdict,
    times: dict[str, float],
    fallback: dict[str, dict[str, float]],
    stages: Stages,
    command: str,
    gap: dict[str, float],
    ceiling: float | None,
    control_bytes: int,
) -> Report:
    """Return everything that the report shows."""
    student_bytes = sum(p.numel() * 4 for p in student_of(trained.student).parameters())
    sizes = {
        "teacher": Size(trained.teacher.bytes, times.get("teacher")),
        "control": Size(student_bytes, None),
        "student": Size(student_bytes, times.get("student")),
        "control served": Size(control_bytes, None),
        "served": Size(artifact.bytes_on_disk, times.get("served")),
    }
    report = Report(
        name=recipe.name,
        created=verdict.created,
        artifact=artifact.digest,
        verdict=verdict.to_json(),
        evaluation=evaluation.to_json(),
        sizes=sizes,
        plan=compressed.plan.summary() | {"activations": compressed.activations and compressed.activations.to_json()},
        export=gap,
        fits={name: models.read_fit(folder) for name, folder in trained.folders.items() if name != "soft labels"},
        fallback=fallback,
        counts=dataset.counts.to_json(),
        splits={name: len(rows) for name, rows in dataset.splits.items()},
        stages=dict(stages.done),
        ceiling=ceiling,
        command=command,
        recipe=json.dumps(recipe.model_dump(mode="json"), indent=2),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("recsys-kd", "torch", "torchrec", "pyarrow", "numpy")},
        },
        digests={"data": dataset_digest(artifact), "recipe": artifact.manifest.lineage.recipe_digest,
                 "teacher": artifact.manifest.lineage.teacher_digest, "artifact": artifact.digest},
        notes=[
            *dataset.counts.of_values(),
            *soft_labels(dataset.counts.soft_labels, dataset.counts.used),
            *emptied(recipe.compress, compressed.plan),
        ],
    )  # fmt: skip
    return Report.from_json(finite(report.to_json()))


def finite(value: Any) -> Any:
    """Return plain values with None for what is undefined: JSON has no NaN."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dataset_digest(artifact: Artifact) -> str:
    """Return the digest of the data that an artifact was made from."""
    return artifact.manifest.lineage.data_digest
