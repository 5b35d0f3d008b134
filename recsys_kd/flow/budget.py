"""Whether a recipe's budget can be met at all, asked by `--dry-run` and by the night before any training.

And whether what was made of it is worth having: an artifact without rows fits, and tells no ids apart.
"""

from collections.abc import Iterable
from math import floor, log10

from recsys_kd.compress.plan import BudgetTooSmall, CompressionPlan
from recsys_kd.data.dataset import Dataset
from recsys_kd.flow.weighing import Room
from recsys_kd.flow.weighing import check_budget as check
from recsys_kd.models.student import Student
from recsys_kd.settings import CompressConfig, Recipe

FEW_ROWS = 0.25
"""Share of ids below which a budget is so tight that it is told before training."""


def check_budget(recipe: Recipe, dataset: Dataset, teacher_bytes: int, *, foretold: bool = False) -> list[str]:
    """Return a warning where few ids can have a row of their own, however short.

    Raises: BudgetTooSmall, in terms of the key that the recipe has, where no student fits.

    foretold: `dataset` is an outline, so that a log's students need a little more, and the teacher's bytes are a bound.
    """
    try:
        room = check(Student(dataset.schema, recipe.student), dataset, recipe.compress, teacher_bytes)
    except BudgetTooSmall as error:
        told, advice = _told(recipe.compress, error, teacher_bytes, foretold)
        raise BudgetTooSmall(error.needed, error.budget, told, advice, "at least " if foretold else "") from None
    return _tight(recipe.compress, room) if room else []


def _tight(config: CompressConfig, room: Room) -> list[str]:
    if room.rows >= FEW_ROWS * room.ids:
        return []
    return [
        f"the budget leaves {room.bytes:,} bytes for rows: {room.rows:,} of {room.ids:,} ids could have one of their "
        f"own if it were a single number, and all others score as the fallback row of their table; {_more(config)}"
    ]


def doubt(recipe: Recipe, outline: Dataset, low: int, high: int) -> list[str]:
    """Return a warning where a ratio can't be met by a teacher of `low` bytes, though by one of `high`, its bound."""
    ratio = recipe.compress.ratio
    if ratio is None:
        return []
    try:
        check(Student(outline.schema, recipe.student), outline, recipe.compress, low)
    except BudgetTooSmall as error:
        best = highest_ratio(low, error.needed)
        return [
            f"compress.ratio: {ratio:g} may be out of reach: the teacher has {high:,} bytes at most, and about {low:,} "
            "if the log has no more ids than its largest row group, which leaves no ratio above "
            f"{best:g}; the run decides it before any training, and a ratio well below that leaves bytes for rows"
        ]
    return []


def no_rows(rows: Iterable[int], advice: str) -> list[str]:
    """Return a warning where no table keeps a row (`rows`: how many, by table), with what to do about it."""
    if any(rows):
        return []
    return [f"no id keeps a row of its own, and every id scores as the fallback row of its table; {advice}"]


def emptied(config: CompressConfig, plan: CompressionPlan) -> list[str]:
    """Return a warning, in terms of the key that the recipe has, where its plan keeps no row of any table."""
    return no_rows((len(table.keep) for table in plan.tables.values()), _more(config))


def _more(config: CompressConfig) -> str:
    """Return what to write into the recipe for more rows."""
    if config.ratio is not None:
        return f"lower `compress.ratio`, now {config.ratio:g}"
    if config.threshold is not None:
        return f"lower `compress.threshold`, now {config.threshold:g}"
    key, value = ("keep_rows", config.keep_rows) if config.bytes is None else ("bytes", config.bytes)
    return f"raise `compress.{key}`, now {value}"


def _told(config: CompressConfig, error: BudgetTooSmall, teacher_bytes: int, foretold: bool) -> tuple[str, str]:
    """Return the budget in the recipe's words, and what to do."""
    if config.ratio is None:
        return f"compress.bytes: {config.bytes}: a budget of {error.budget:,} bytes", "write more than that"
    most = "at most " if foretold else ""
    told = (
        f"compress.ratio: {config.ratio:g}: a budget of {most}{error.budget:,} bytes, the {most}{teacher_bytes:,} of "
        f"the teacher by {config.ratio:g},"
    )
    return told, _advice(teacher_bytes, error.needed, foretold)


def _advice(teacher_bytes: int, needed: int, foretold: bool) -> str:
    best = highest_ratio(teacher_bytes, needed)
    if best <= 1:
        return "no ratio can: the teacher itself is smaller; give `compress.keep_rows: 1.0` or more `compress.bytes`"
    if foretold:
        return f"no ratio above {best:g} can be met, and perhaps none near it, for tables are counted at their most"
    return f"the highest ratio that can be met is {best:g}, and one well below it leaves bytes for rows: lower it"


def highest_ratio(teacher_bytes: int, needed: int) -> float:
    """Return the highest ratio of three digits at which `needed` bytes are within a share of the teacher's."""
    exact = teacher_bytes / needed
    step = 10.0 ** (floor(log10(exact)) - 2)
    return round(floor(exact / step) * step, 10)
