"""What can be wrong with a recipe whatever its log holds, found before torch is imported: it takes seconds."""

import os

from recsys_kd.compress.plan import parse_bytes
from recsys_kd.data.files import catalogue_files, list_files
from recsys_kd.data.log import open_log
from recsys_kd.errors import InputError
from recsys_kd.flow.folders import check_folders
from recsys_kd.models.plugins import BUILT_IN, find_teacher
from recsys_kd.registry import where
from recsys_kd.registry.protocol import RegistryUnreachable
from recsys_kd.settings import OVER_FEATURES, Recipe, SoftLabelConfig


class MissingTeacherColumn(InputError):
    """A precomputed teacher without its column."""


class NothingToBag(InputError):
    """Teachers are asked for where none is trained, or where only one is kept."""


class NoSuchAge(InputError):
    """A teacher's age is asked about that has none, or that is not known."""


class NoFeatures(InputError):
    """The student is to learn from inside a teacher that shows only its scores."""


class RatioOfNothing(InputError):
    """The budget is a share of a teacher whose size nobody knows."""


def check(recipe: Recipe) -> None:
    """Raise for what is wrong with a recipe whatever the log holds.

    Raises: FolderUnwritable, FolderInUse, BadAddress, NoParquet, UnknownTeacher, BadBudget, and what `check_teacher`
    raises.
    """
    check_folders(recipe)
    where.check_address(os.environ.get(where.VARIABLE) or recipe.registry)
    check_teacher(recipe)
    if recipe.compress.bytes is not None:
        parse_bytes(recipe.compress.bytes)
    list_files(recipe.data.path)
    catalogue_files(recipe.data.catalogue)


def check_log(recipe: Recipe) -> None:
    """Check that the log's files have the columns that the recipe names. Raises what `data.log.open_log` raises."""
    open_log(recipe.data, recipe.split, {"teacher": recipe.teacher.column} if recipe.teacher.column else None)


def unreachable(recipe: Recipe) -> list[str]:
    """Return that a registry in Redis does not answer now, as a plan says it: by the night it may."""
    address = os.environ.get(where.VARIABLE) or recipe.registry
    if address is None or not where.is_url(address):
        return []
    try:
        where.open_registry(address, recipe.store).epoch(recipe.name)
    except RegistryUnreachable as error:
        return [f"registry: {error}; a run that can't reach it stops before any training"]
    return []


def check_teacher(recipe: Recipe) -> None:
    """Raise before any work where the recipe names a teacher that is not there, or lacks its column."""
    if recipe.teacher.kind not in BUILT_IN:
        find_teacher(recipe.teacher.kind)
    if recipe.teacher.kind == "precomputed" and recipe.teacher.column is None:
        raise MissingTeacherColumn("teacher.column: kind `precomputed` needs the log column that holds the scores")
    if recipe.teacher.trained_until and recipe.teacher.kind != "precomputed":
        raise NoSuchAge(
            f"teacher.trained_until: one of kind '{recipe.teacher.kind}' is trained by the night; remove the key"
        )
    if recipe.teacher.max_age_days and not recipe.teacher.trained_until:
        raise NoSuchAge("teacher.max_age_days: give the day that the teacher learned until as teacher.trained_until")
    if recipe.teacher.bag and recipe.teacher.kind != "dcnv2":
        raise NothingToBag(f"teacher.bag: a teacher of kind '{recipe.teacher.kind}' can't be bagged; remove the key")
    if recipe.teacher.kind == "precomputed":
        _check_labels_of_logged(recipe)
    if recipe.distil.over_features and recipe.teacher.kind != "dcnv2":
        names = ", ".join(f"`{name}`" for name in recipe.distil.losses if name in OVER_FEATURES)
        raise NoFeatures(
            f"distil.losses: {names} looks inside the teacher, and one of kind '{recipe.teacher.kind}' shows only its "
            "scores; remove it, or set teacher.kind: dcnv2"
        )
    if recipe.student.init == "teacher_pca" and recipe.teacher.kind != "dcnv2":
        raise NoFeatures(
            f"student.init: `teacher_pca` needs the teacher's tables, and one of kind '{recipe.teacher.kind}' shows "
            "only its scores; remove it, or set teacher.kind: dcnv2"
        )
    if recipe.compress.ratio is not None and recipe.teacher.kind != "dcnv2":
        raise RatioOfNothing(
            f"compress.ratio: {recipe.compress.ratio:g} is a share of the teacher's bytes, and one of kind "
            f"'{recipe.teacher.kind}' has none; give compress.bytes, such as 20MB, instead"
        )


def _check_labels_of_logged(recipe: Recipe) -> None:
    """Raise NothingToBag for a way to get soft labels that nobody takes: a precomputed teacher's are in the log."""
    given, usual = recipe.soft_labels, SoftLabelConfig()
    # Assistants of later rounds are trained as teachers are.
    names = ("members",) if recipe.distil.rounds > 1 else ("members", "protocol", "blocks")
    for name in names:
        if (value := getattr(given, name)) != getattr(usual, name):
            raise NothingToBag(
                f"soft_labels.{name}: got {value}, which says how teachers are trained for soft labels; those of a "
                "precomputed one are in the log: remove the key"
            )
