"""How long a night takes and what it holds in memory, told from the recipe and the number of rows.

Measured on 2 cores of an x86-64 server, in the demo's night (1M rows, 786k of them for training, 8 fields,
teacher of width 64, 241 s with 3 teacher epochs): reading and encoding 2.7 s, teacher 34 s, soft labels 68 s, control
32 s, student 33 s, planning the compression 16 s a student, recovery 10 s a student, evaluation 18 s.

A training row costs its arithmetic (three times the multiply-adds of one forward pass, at 75 GFLOP/s) and its lookups
(0.9 us per looked-up field at width 64). That gives 62k teacher rows/s and 117k student rows/s in the demo (measured,
validation included: 70k and 121k), and 103k teacher rows/s for user and item alone with the defaults (measured: 106k).
"""

from itertools import pairwise

from recsys_kd.settings import Recipe

_FLOPS = 75e9
_LOOKUP_SECONDS, _LOOKUP_WIDTH = 0.9e-6, 64
_READ_ROWS_PER_SECOND = 370_000
_TEST_ROWS_PER_SECOND = 8_000
"""Through all seven models, metrics and bootstrap included."""
_PLAN_SECONDS, _PLAN_LEAST, _PLAN_ROWS = 16, 3, 71_000
"""The loss metric and the plan's bisection on validation rows: so many seconds for so many, which are then sampled."""
_TEACHER_EPOCHS, _STUDENT_EPOCHS = 4, 8
"""What early stopping usually leaves."""
_BASE_BYTES, _ROW_BYTES, _TABLE_COPIES = 1_500_000_000, 72, 3
"""Libraries; sorting the log; a teacher's tables with their best epoch's and the bytes being written."""


def seconds(recipe: Recipe, rows: int, train_share: float) -> dict[str, float]:
    """Return seconds per stage for a log of so many rows, that share of which is for training."""
    train = rows * train_share
    test = (rows - train) * recipe.split.test_days / (recipe.split.test_days + recipe.split.validation_days)
    planning = max(_PLAN_LEAST, _PLAN_SECONDS * min(1.0, (rows - train - test) / _PLAN_ROWS))
    student, recovery = train * student_row_seconds(recipe), recipe.compress.recovery
    teachers = passes(recipe) * min(_TEACHER_EPOCHS, recipe.teacher.epochs)
    return {
        "read": rows / _READ_ROWS_PER_SECOND,
        "teachers": teachers * train * teacher_row_seconds(recipe),
        "student and control": 2 * min(_STUDENT_EPOCHS, recipe.student.epochs) * student,
        "compression": 2 * (planning + recovery.epochs * recovery.steps * student),
        "evaluation": test / _TEST_ROWS_PER_SECOND,
    }


def memory_bytes(rows: int, table_bytes: int) -> int:
    """Return the peak memory of a night, given the bytes of one teacher's tables."""
    return _BASE_BYTES + _ROW_BYTES * rows + _TABLE_COPIES * table_bytes


def passes(recipe: Recipe) -> float:
    """Return how many times the training rows are gone through per epoch by all teachers together."""
    blocks = recipe.soft_labels.blocks
    if recipe.teacher.kind == "precomputed":
        return 0.0
    # The whole teacher, and those of the soft labels: blocks teachers of (blocks - 1) / blocks of the rows each, or
    # one of 1 / blocks, one of 2 / blocks, .. of them.
    parts = {"cross_fitted": blocks - 1.0, "out_of_time": (blocks - 1) / 2, "in_sample": 1.0}
    return 1.0 + recipe.soft_labels.members * parts[recipe.soft_labels.protocol]


def teacher_row_seconds(recipe: Recipe) -> float:
    """Return seconds per training row of one teacher: cross layers of two thin matrices each, then the MLP."""
    config, lookups, others = recipe.teacher, *_inputs(recipe)
    size = lookups * config.width + others
    cross = config.cross_layers * 2 * size * min(config.cross_rank, size)
    return _row_seconds(cross + _mlp(size, config.hidden), lookups * config.width)


def student_row_seconds(recipe: Recipe) -> float:
    """Return seconds per training row of a student."""
    lookups, others = _inputs(recipe)
    size = lookups * recipe.student.width + others
    return _row_seconds(_mlp(size, recipe.student.hidden), lookups * recipe.student.width)


def _inputs(recipe: Recipe) -> tuple[int, int]:
    """Return how many vectors of the model's width go in (looked-up ones and projected ones), and how many numbers."""
    dense = sum(f.kind == "dense" for f in recipe.data.fields)
    return 2 + len(recipe.data.fields) - dense, dense


def _mlp(size: int, hidden: tuple[int, ...]) -> int:
    """Return the multiply-adds of a row through an MLP with one output."""
    return sum(a * b for a, b in pairwise((size, *hidden, 1)))


def _row_seconds(multiply_adds: int, looked_up: int) -> float:
    """Return seconds per row: forward, and backward for inputs and weights; `looked_up` numbers from tables."""
    return 3 * 2 * multiply_adds / _FLOPS + _LOOKUP_SECONDS * looked_up / _LOOKUP_WIDTH
