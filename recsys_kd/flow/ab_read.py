"""What `ab` and `gate` read of a log before they compare: models, prices, slices, and whether it may judge them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from recsys_kd.data.files import first_with_rows, open_parquet
from recsys_kd.data.layout import MissingColumn
from recsys_kd.errors import InputError
from recsys_kd.evaluate.sample import Sample
from recsys_kd.flow.ab_columns import data_config, names_in
from recsys_kd.flow.ab_log import ScoredLog, Wanted, read_scored
from recsys_kd.flow.ab_owners import check_owners
from recsys_kd.flow.ab_policy import gain_of, target_columns
from recsys_kd.flow.ab_refs import Ref, resolve
from recsys_kd.flow.ab_scores import Declared, check_columns, taken_columns
from recsys_kd.flow.ab_slices import catalogue_column, catalogue_numbers
from recsys_kd.flow.lineage import check_unseen, instant
from recsys_kd.progress import SILENT, Progress
from recsys_kd.settings import AbConfig, DataConfig, EvaluateConfig, Recipe, load_recipe


class BadAbColumn(InputError):
    """A column of a comparison is one that it must not be."""


@dataclass(frozen=True)
class Reading:
    """A scored log, and what a reader of its results must know of it."""

    log: ScoredLog
    targets: dict[str, str]
    """Model -> log column of its own chances."""
    notes: tuple[str, ...]
    """Rows that are left out, and models whose training days are not known."""


def settings_of(recipe: Path | None) -> tuple[Recipe | None, AbConfig, EvaluateConfig]:
    """Return a recipe, and what it says of comparisons; the defaults where there is none. Raises: BadRecipe."""
    if recipe is None:
        return None, AbConfig(), EvaluateConfig()
    loaded = load_recipe(recipe)
    return loaded, loaded.ab, loaded.evaluate


def resolve_all(names: Iterable[str], log: Path, store: Path, registry: str | None = None) -> tuple[Ref, ...]:
    """Return the models of some names, each once. Raises: what `ab_refs.resolve` raises."""
    columns = names_in(log)
    return tuple(resolve(name, columns, store, registry) for name in dict.fromkeys(names))


def read_for(
    refs: tuple[Ref, ...],
    log: Path,
    recipe: Recipe | None,
    since: str | None,
    scores: Declared,
    quarantine: Path | None,
    progress: Progress = SILENT,
) -> Reading:
    """Read a log for some models, with the recipe's price, slices and groups (`ab:`).

    Raises: InputError subclasses that name the file, column, row or model that is wrong; SeenInTraining.
    """
    ab = recipe.ab if recipe else AbConfig()
    data, columns = data_config(log, recipe), names_in(log)
    group = _group_column(ab, columns)
    targets = target_columns([r.name for r in refs], columns)
    _check_own_columns(ab, data)
    check_columns(refs, data, scores, taken_columns(ab.price, group, ab.slices, targets.values()))
    numbers = (ab.price,) if ab.price and ab.price in columns else ()
    in_log = dict.fromkeys([*(name for name in ab.slices if name in columns), *([group] if group else [])])
    start = instant(since) if since else None
    found = read_scored(data, Wanted(refs, numbers, tuple(targets.values()), tuple(in_log), scores, start, quarantine),
                        progress)  # fmt: skip
    unknown = check_unseen(list(refs), found.stamp)
    check_owners(found, data)
    _add_catalogue(found, data, ab, columns)
    return Reading(found, targets, (*found.notes, *unknown))


def _check_own_columns(ab: AbConfig, data: DataConfig) -> None:
    """Raise BadAbColumn where a price or slices would be the label, or slices fractions."""
    schema = open_parquet(first_with_rows(data.path)).schema_arrow
    asked = [("ab.slices", name) for name in ab.slices] + ([("ab.price", ab.price)] if ab.price else [])
    for key, name in asked:
        if name == data.columns.label:
            raise BadAbColumn(f"{key}: '{name}' is the log's label; a price or a slice must not know it")
        if key == "ab.slices" and name in schema.names and pa.types.is_floating(schema.field(name).type):
            raise BadAbColumn(
                f"{key}: column '{name}' is {schema.field(name).type}; a slice is a whole number or text: write its "
                "ranges as such"
            )


def _group_column(ab: AbConfig, columns: list[str]) -> str | None:
    if ab.groups is None:
        return None
    if ab.groups.column not in columns:
        raise MissingColumn(f"ab.groups.column: no column '{ab.groups.column}' in the log; it has {', '.join(columns)}")
    return ab.groups.column


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
    return Sample(log.label, log.weight, log.user, log.request, log.item, price, gain, ab.cluster), how
