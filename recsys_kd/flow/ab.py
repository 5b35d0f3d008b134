"""Offline A/B over a log: models and logged scores in, a comparison and its page out.

From a notebook: `compare_log(Path("log.parquet"), "model_a", ["model_b"]).comparison.headline`.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recsys_kd.data.layout import MissingColumn
from recsys_kd.errors import InputError
from recsys_kd.evaluate.comparison import Comparison, compare
from recsys_kd.evaluate.evaluation import plain_values
from recsys_kd.evaluate.offpolicy import OffPolicy
from recsys_kd.evaluate.sample import Sample
from recsys_kd.flow.ab_columns import data_config, names_in
from recsys_kd.flow.ab_log import ScoredLog, Wanted, read_scored
from recsys_kd.flow.ab_policy import gain_of, policy_values, target_columns
from recsys_kd.flow.ab_refs import Ref, resolve
from recsys_kd.flow.ab_scores import Declared, check_columns, taken_columns
from recsys_kd.flow.ab_slices import catalogue_column, catalogue_numbers, slices_of
from recsys_kd.flow.ab_split import GroupShares, group_shares
from recsys_kd.flow.lineage import check_unseen
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import AbConfig, DataConfig, EvaluateConfig, load_recipe, milliseconds


class SameModel(InputError):
    """A model would be compared with itself."""


class BadTime(InputError):
    """A time is not ISO 8601."""


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


def instant(text: str) -> int:
    """Return milliseconds UTC of an ISO 8601 text. Raises: BadTime."""
    try:
        return milliseconds(text)
    except ValueError:
        raise BadTime(f"--since: '{text}' is not a time; write it as 2026-01-31 or 2026-01-31T12:00") from None


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
) -> Offline:
    """Compare treatments with a control on a log; each is `model@alias`, `model@version`, an artifact or a column.

    scores: what score columns hold, `logit` or `probability`, all of them or by column; by default what their values
    say plainly. Bad rows go to the file `quarantine`, in a temporary folder where none is named.
    Raises: InputError subclasses that name the file, column, row or model that is wrong.
    """
    _check_distinct(control, treatments)
    loaded = load_recipe(recipe) if recipe else None
    data = data_config(log, loaded)
    ab, evaluate = (loaded.ab, loaded.evaluate) if loaded else (AbConfig(), EvaluateConfig())
    columns = names_in(log)
    refs = tuple(resolve(name, columns, store) for name in dict.fromkeys([control, *treatments]))
    start = instant(since) if since else None
    targets = target_columns([r.name for r in refs], columns)
    numbers = (ab.price,) if ab.price and ab.price in columns else ()
    in_log = tuple(dict.fromkeys([*(name for name in ab.slices if name in columns), *_group_column(ab, columns)]))
    group = ab.groups.column if ab.groups else None
    check_columns(refs, data, scores, taken_columns(ab.price, group, ab.slices, targets.values()))
    wanted = Wanted(refs, numbers, tuple(targets.values()), in_log, scores, start, quarantine)
    found = read_scored(data, wanted, progress)
    notes = (*_alike(refs), *check_unseen(list(refs), found.stamp))
    _add_catalogue(found, data, ab, columns)
    sample, how = sample_of(found, ab)
    comparison = compare(found.scores, control, sample, ab, evaluate, slices_of(found))
    policies, missing = policy_values(found, targets, evaluate.confidence)
    shares = group_shares(found, ab.groups) if ab.groups else None
    split = [shares.sentence] if shares else []
    thin = [f"off-policy, {name}: {w}" for name, p in policies.items() for w in p.warnings]
    comparison = replace(
        comparison,
        warnings=(*split, *found.notes, *notes, *comparison.warnings, *missing, *thin, *([how] if how else [])),
    )
    digests = {"log": found.digest, **{r.name: r.digest for r in refs if r.digest}}
    return Offline(comparison, found, digests, policies, shares)


def _check_distinct(control: str, treatments: list[str]) -> None:
    if control in treatments:
        raise SameModel(f"--control and --treatment are both '{control}': name two models to compare")


def _alike(refs: tuple[Ref, ...]) -> list[str]:
    """Return notes on names that stand for one artifact."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(r.digest, r.name), r.name) for r in refs if r.digest]
    return [f"'{a}' and '{b}' are the same artifact: they can't differ" for a, b in pairs if a != b]


def _group_column(ab: AbConfig, columns: list[str]) -> list[str]:
    if ab.groups is None:
        return []
    if ab.groups.column not in columns:
        raise MissingColumn(f"ab.groups.column: no column '{ab.groups.column}' in the log; it has {', '.join(columns)}")
    return [ab.groups.column]


def _add_catalogue(log: ScoredLog, data: DataConfig, ab: AbConfig, columns: list[str]) -> None:
    """Add the prices and slice values that only the catalogue has."""
    if ab.price and ab.price not in columns:
        log.numbers[ab.price] = catalogue_numbers(data, ab.price, log.items)[log.item]
    for name in ab.slices:
        if name not in columns:
            values, log.names[name] = catalogue_column(data, name, log.items)
            log.categories[name] = values[log.item]


def sample_of(log: ScoredLog, ab: AbConfig) -> tuple[Sample, str]:
    """Return a scored log as the sample of a comparison, and a note on how positions were corrected for."""
    price = log.numbers.get(ab.price) if ab.price else None
    gain, how = gain_of(log)
    return Sample(log.label, log.weight, log.user, log.request, log.item, price, gain), how


def today() -> str:
    """Return the time now, UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
