"""How progress is shown: rich bars on a terminal, one plain line now and then where there is none; always on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from recsys_kd.errors import RecsysKdError
from recsys_kd.progress import Progress, Task

_PLAIN_SECONDS = 10.0


class _Bar:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self.bars, self.id, self.done, self.start = bars, task, 0, time.perf_counter()

    def advance(self, units: int, **figures: float) -> None:
        self.done += units
        speed = self.done / max(time.perf_counter() - self.start, 1e-9)
        figures.pop("rows_per_second", None)
        shown = " ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v:,}" for k, v in figures.items())
        self.bars.update(self.id, advance=units, speed=f"{speed:,.0f}/s", figures=shown)


class TerminalProgress:
    """Bars with rate, remaining time and figures such as the loss."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    @contextmanager
    def task(self, name: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        """Show a bar for the length of a block, then a line of what was done."""
        columns = (
            TextColumn("{task.description:<32}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[speed]:>14}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Bars(*columns, console=self.console, transient=True) as bars:
            yield _Bar(bars, bars.add_task(name, total=total, speed="", figures=""))

    def note(self, message: str) -> None:
        """Print a line above the bars."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)


class _PlainTask:
    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.start = 0, time.perf_counter()
        self.said = self.start

    def advance(self, units: int, **figures: float) -> None:
        self.done += units
        now = time.perf_counter()
        if now - self.said >= _PLAIN_SECONDS:
            self.said = now
            of = f" of {self.total:,}" if self.total else ""
            loss = f", loss {figures['loss']:.4f}" if "loss" in figures else ""
            rate = self.done / (now - self.start)
            print(f"{self.name}: {self.done:,}{of} {self.unit}, {rate:,.0f}/s{loss}", file=sys.stderr, flush=True)


class PlainProgress:
    """Lines for logs and pipes."""

    @contextmanager
    def task(self, name: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        """Print a line every ten seconds."""
        yield _PlainTask(name, total, unit)

    def note(self, message: str) -> None:
        """Print a line."""
        print(message, file=sys.stderr, flush=True)


def progress() -> Progress:
    """Return bars on a terminal, plain lines elsewhere."""
    return TerminalProgress() if sys.stderr.isatty() else PlainProgress()


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Put a recipe's file before what is wrong with its keys."""
    try:
        yield
    except RecsysKdError as error:
        error.args = (f"{file}: {error}",)
        raise
