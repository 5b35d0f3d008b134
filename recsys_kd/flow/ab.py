"""Offline A/B over a log: models and logged scores in, a comparison and its page out.

From a notebook: `compare_log(Path("log.parquet"), "model_a", ["model_b"]).comparison.headline`.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recsys_kd.errors import InputError
from recsys_kd.evaluate.comparison import Comparison, compare
from recsys_kd.evaluate.evaluation import plain_values
from recsys_kd.evaluate.offpolicy import OffPolicy
from recsys_kd.flow.ab_log import ScoredLog
from recsys_kd.flow.ab_policy import doubts_of, policy_values
from recsys_kd.flow.ab_read import read_for, resolve_all, sample_of, settings_of
from recsys_kd.flow.ab_refs import same_artifacts
from recsys_kd.flow.ab_scores import Declared
from recsys_kd.flow.ab_slices import day_note, slices_of
from recsys_kd.flow.ab_split import GroupShares, group_shares
from recsys_kd.flow.outputs import check_outputs, inputs_of
from recsys_kd.progress import SILENT, Progress


class SameModel(InputError):
    """A model would be compared with itself."""


@dataclass(frozen=True)
class Offline:
    """A comparison and what it was made from."""

    comparison: Comparison
    log: ScoredLog
    digests: dict[str, str]
    """Digest of the log, and of every model that is an artifact."""
    policies: Mapping[str, OffPolicy] = field(default_factory=dict)
    """Off-policy value of the models whose own chances the log holds."""
    groups: GroupShares | None = None
    """How users fall into the groups of a live experiment, where the recipe names them."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the comparison, digests, and off-policy values without weights, groups."""
        policies = {n: {k: v for k, v in asdict(p).items() if k != "weights"} for n, p in self.policies.items()}
        return {
            **self.comparison.to_json(),
            "digests": self.digests,
            "off_policy": plain_values(policies),
            "groups": self.groups and asdict(self.groups),
        }


def compare_log(  # noqa: PLR0913 - a log, its readers and its models
    log: Path,
    control: str,
    treatments: list[str],
    recipe: Path | None = None,
    store: Path = Path("store"),
    since: str | None = None,
    scores: Declared = "auto",
    progress: Progress = SILENT,
    quarantine: Path | None = None,
    registry: str | None = None,
) -> Offline:
    """Compare treatments with a control on a log; each is `model@alias`, `model@version`, an artifact or a column.

    scores: what score columns hold, `logit` or `probability`, all of them or by column; by default what their values
    say plainly. Bad rows go to the file `quarantine`, in a temporary folder where none is named. registry: a Redis URL
    or an SQLite path; the file in the store where None.
    Raises: InputError subclasses that name the file, column, row or model that is wrong.
    """
    _check_distinct(control, treatments)
    check_outputs({"quarantine": quarantine}, inputs_of(log, recipe, store, registry))
    loaded, ab, evaluate = settings_of(recipe)
    refs = resolve_all([control, *treatments], log, store, registry)
    reading = read_for(refs, log, loaded, since, scores, quarantine, progress)
    found = reading.log
    sample, corrected = sample_of(found, ab)
    policies, missing = policy_values(found, reading.targets, evaluate.confidence, ab.cluster)
    doubts = doubts_of(policies, treatments)
    comparison = compare(found.scores, control, sample, ab, evaluate, slices_of(found), doubts)
    shares = group_shares(found, ab.groups) if ab.groups else None
    split = [shares.sentence] if shares and shares.broken else []
    doubted = [f"{name}: {doubt}; whatever its metrics say" for name, doubt in doubts.items()]
    values = [f"off-policy, {name}: {w}" for name, p in policies.items() for w in p.warnings]
    read = (*split, *reading.notes, *same_artifacts(refs), *day_note(found))
    told = (*read, *comparison.warnings, *missing, *doubted, *values, *([corrected] if corrected else []))
    comparison = replace(comparison, warnings=told, **(_undecided(comparison, shares) if split and shares else {}))
    digests = {"log": found.digest, **{r.name: r.digest for r in refs if r.digest}}
    return Offline(comparison, found, digests, policies, shares)


def _undecided(found: Comparison, shares: GroupShares) -> dict[str, Any]:
    """Return what a broken split changes: nothing that was measured, but nobody may decide by it."""
    return {"headline": shares.headline(found.headline), "outcomes": dict.fromkeys(found.outcomes, "undecided")}


def _check_distinct(control: str, treatments: list[str]) -> None:
    if control in treatments:
        raise SameModel(f"--control and --treatment are both '{control}': name two models to compare")


def today() -> str:
    """Return the time now, UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
