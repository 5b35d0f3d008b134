"""One model's night, end to end: read, teach, distil, compress, evaluate from disk, gate, register, report."""

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.read import open_artifact
from recsys_kd.artifact.write import Artifact
from recsys_kd.data.dataset import Dataset
from recsys_kd.data.encode import encode
from recsys_kd.data.evidence import of_dataset
from recsys_kd.data.files import catalogue_files, content_key, list_files
from recsys_kd.evaluate.advice import with_next_step
from recsys_kd.evaluate.evaluation import Evaluation
from recsys_kd.evaluate.gate import Subject, Verdict, decide
from recsys_kd.evaluate.report import write_report
from recsys_kd.flow import compression, models
from recsys_kd.flow.activations import with_activations
from recsys_kd.flow.budget import check_budget, emptied
from recsys_kd.flow.cache import Stages, key_of, remove_leftovers
from recsys_kd.flow.checks import check
from recsys_kd.flow.decidable import check_decidable, check_outcomes, soft_labels, too_good
from recsys_kd.flow.evaluation import (
    Calibrated,
    evaluate_models,
    export_gap,
    score_compiled,
    score_test,
    scoring_time,
)
from recsys_kd.flow.floats import find_warm, keep_float
from recsys_kd.flow.guard import with_reason
from recsys_kd.flow.proof import score_one
from recsys_kd.flow.provenance import digest_of_files, recipe_digest
from recsys_kd.flow.publication import promote, register
from recsys_kd.flow.recovery import recovery_stage
from recsys_kd.flow.reporting import build_report
from recsys_kd.flow.training import Trained, student_of, train
from recsys_kd.progress import Progress
from recsys_kd.registry import where
from recsys_kd.registry.protocol import Pointer, Registry, Version
from recsys_kd.registry.rules import folder
from recsys_kd.registry.seal import sealed
from recsys_kd.registry.store import copy_beside
from recsys_kd.settings import Recipe


@dataclass(frozen=True)
class Night:
    """What a run came to."""

    verdict: Verdict
    artifact: Artifact
    version: Version | None
    """None where the night was not to publish."""
    champion: Pointer | None
    seen: int
    """The registry's epoch that the verdict was made at."""
    evaluation: Evaluation
    report_html: Path
    report_json: Path
    seconds: float
    scored: dict[str, Any]
    """One request of the log, scored through what the registry names as this version."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {
            "passed": self.verdict.passed,
            "reasons": [c.sentence for c in self.verdict.checks],
            "artifact": self.artifact.digest,
            "path": str(self.artifact.path),
            "bytes": self.artifact.bytes_on_disk,
            "version": None if self.version is None else self.version.number,
            "seen": self.seen,
            "verdict": self.verdict.to_json(),
            "champion": None if self.champion is None else asdict(self.champion),
            "metrics": self.evaluation.to_json()["metrics"],
            "deltas": self.evaluation.to_json()["deltas"],
            "report": str(self.report_html),
            "seconds": round(self.seconds, 1),
            "scored": self.scored,
        }


def open_registry(recipe: Recipe) -> Registry:
    """Return the registry: RECSYS_KD_REGISTRY, or what the recipe names, or the embedded one beside the artifacts."""
    return where.open_registry(os.environ.get(where.VARIABLE) or recipe.registry, recipe.store)


def read(recipe: Recipe, stages: Stages) -> tuple[Dataset, str]:
    """Return the encoded log, and the digest of all that it holds.

    Raises: what `data.encode.encode` and `flow.decidable.check_outcomes` raise.
    """
    files = list_files(recipe.data.path)
    more = catalogue_files(recipe.data.catalogue)
    extra = {"teacher": recipe.teacher.column} if recipe.teacher.column else None
    key = key_of("read", content_key([*files, *more], recipe.data.path), recipe.data, recipe.split, extra)
    stopped = recipe.work / f"quarantine-{key}.parquet"

    def make(out: Path) -> None:
        encode(recipe.data, recipe.split, out / "rows", stages.progress, extra, stopped)
        (out / "digest").write_text(digest_of_files(out / "rows"))

    folder = stages.run("read", key, make)
    dataset = Dataset.open(folder / "rows")
    counts = dataset.counts
    for line in (f"rows: {counts.line()}", *counts.notes(), *soft_labels(counts.soft_labels, counts.used)):
        stages.progress.note(line)
    if dataset.quarantine:
        stages.progress.note(f"bad rows are in {dataset.quarantine}")
    check_outcomes(recipe.split, of_dataset(dataset))
    return dataset, (folder / "digest").read_text()


def judge(recipe: Recipe, evaluation: Evaluation, artifact: Artifact, data_digest: str, teacher_bytes: int) -> Verdict:
    """Return the gate's verdict; a teacher without bytes of its own (0) is not compared with in size."""
    size, champion = artifact.bytes_on_disk, "champion" in evaluation.metrics
    subject = Subject(artifact.digest, data_digest, size, teacher_bytes or size, champion)
    verdict = decide(recipe.gate, evaluation, subject, recipe.evaluate.k)
    if teacher_bytes:
        return verdict
    checks = tuple(c for c in verdict.checks if c.name != "size")
    return replace(verdict, checks=checks, passed=all(c.passed for c in checks if c.gates))


def run(
    recipe: Recipe, progress: Progress, *, ceiling: Any = None, command: str = "recsys-kd run", publish: bool = True
) -> Night:
    """Run a model's night. `ceiling(dataset)` may give the best AUC that anyone can reach (synthetic shops know it).

    Without `publish` the registry is only read: whoever started the night publishes what it came to.
    """
    start = time.perf_counter()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    check(recipe)
    remove_leftovers(recipe.work)
    registry = open_registry(recipe)
    stages = Stages(recipe.work, progress)
    dataset, data_digest = read(recipe, stages)
    for warning in check_decidable(recipe, of_dataset(dataset)):
        progress.note(f"warning: {warning}")
    for warning in check_budget(recipe, dataset, models.teacher_bytes(recipe, dataset.schema)):
        progress.note(f"warning: {warning}")
    before = registry.state(recipe.name).aliases.get("champion")
    warm = find_warm(recipe, dataset, before.digest if before else None, progress)
    trained = train(recipe, dataset, data_digest, stages, warm)
    compressed = compress(recipe, dataset, trained, stages, "student")
    twin = compress(recipe, dataset, trained, stages, "control")
    state = registry.state(recipe.name)  # champion and epoch as of one moment: see `promote`
    champion = state.aliases.get("champion")
    digests = {"data": data_digest, "recipe": recipe_digest(recipe), "teacher": trained.teacher.digest}
    parents = [champion.digest] if champion else []
    artifact = compression.publish_artifact(recipe.store, recipe.name, compressed, dataset, digests, parents)
    if recipe.student.warm_start:
        keep_float(recipe, dataset, student_of(trained.student), artifact.digest, warm)
    logits, fallback = score_all(trained, compressed, twin, artifact, dataset)
    live = champion_logits(registry, champion, recipe, dataset, artifact, progress)
    if live is not None:
        logits["champion"] = live
    evaluation = evaluate_models(logits, dataset, recipe.evaluate, progress)
    for line in too_good(evaluation):
        progress.note(line)
    verdict = with_reason(judge(recipe, evaluation, artifact, data_digest, trained.teacher.bytes), trained.untaught)
    verdict = sealed(with_next_step(verdict, recipe, evaluation, len(dataset.splits["train"])))
    torch_models = {"teacher": trained.teacher.model, "student": trained.student.model}
    times = scoring_time(dataset, torch_models, artifact.path)
    report = build_report(
        recipe, dataset, trained, compressed, artifact, evaluation, verdict, times, fallback, stages, command,
        export_gap(logits["served"], logits["recovered"]), ceiling(dataset) if ceiling else None,
        compression.artifact_bytes(recipe.name, twin, dataset, digests, parents),
    )  # fmt: skip
    # All that can still fail comes before the model goes live.
    version = register(registry, recipe.name, artifact) if publish else None
    scored = score_one(Path(version.path) if version else artifact.path, recipe)
    html, js = write_report(report, recipe.store / recipe.name / "reports" / artifact.digest[:12])
    pointer = promote(registry, version, verdict, state.epoch) if version else champion
    if publish:
        copy_beside(registry, recipe.store, recipe.name)
    seconds = time.perf_counter() - start
    return Night(verdict, artifact, version, pointer, state.epoch, evaluation, html, js, seconds, scored)


def compress(
    recipe: Recipe, dataset: Dataset, trained: Trained, stages: Stages, which: Literal["student", "control"]
) -> compression.Compressed:
    """Return the student, or the control, compressed to the budget; the control is recovered by labels alone."""
    model, soft = (trained.student, trained.soft) if which == "student" else (trained.control, None)
    recover = recovery_stage(recipe, dataset, soft, trained.folders[which], stages, f"{which}-recovery")
    made = compression.compress(student_of(model), dataset, recipe.compress, trained.teacher.bytes, recover)
    for warning in emptied(recipe.compress, made.plan) if which == "student" else []:
        stages.progress.note(f"warning: {warning}")
    return with_activations(recipe, made, dataset, stages, f"{which}-activations")


def score_all(
    trained: Trained,
    compressed: compression.Compressed,
    twin: compression.Compressed,
    artifact: Artifact,
    dataset: Dataset,
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Return every model's test logits, and the share of fallback lookups before and after pruning."""
    teacher = Calibrated(trained.teacher.model, models.calibrate(trained.teacher.model, dataset))
    pruned, _ = score_compiled(compressed.pruned, dataset)
    served, fallback = score_compiled(open_artifact(artifact.path)[1], dataset)
    logits = {
        "teacher": score_test(teacher, dataset),
        "control": score_test(trained.control, dataset),
        "control served": score_compiled(twin.served, dataset)[0],
        "student": score_test(trained.student, dataset),
        "pruned": pruned,
        "recovered": score_compiled(compressed.recovered, dataset)[0],
        "served": served,
    }
    return logits, fallback.shares()


def champion_logits(
    registry: Registry,
    champion: Pointer | None,
    recipe: Recipe,
    dataset: Dataset,
    artifact: Artifact,
    progress: Progress,
) -> Any:
    """Return the test logits of today's champion; None where there is none, or it takes other inputs."""
    if champion is None or champion.digest == artifact.digest:
        return None
    try:
        student = open_artifact(folder(registry.version(recipe.name, champion.number)))[1]
    except ArtifactRefused as error:
        progress.note(f"today's champion can't be compared: {error}")
        return None
    if student.schema.fingerprint != dataset.schema.fingerprint:
        progress.note("today's champion takes other inputs; it is not compared")
        return None
    return score_compiled(student, dataset)[0]
