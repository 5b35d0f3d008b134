"""How long work reports itself, without saying how it is shown.

Rooms take a `Progress` and call it; the command line shows it with rich, a worker logs it, and a library
caller who passes nothing gets `SILENT`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One bar: `advance` by the units done, with figures such as `loss` to show beside it."""

    def advance(self, units: int, **figures: float) -> None:
        """Add `units` done."""
        ...


class Progress(Protocol):
    """Opens bars (`total` is None where the amount of work is unknown) and prints single lines."""

    def task(self, name: str, total: int | None, unit: str = "rows") -> AbstractContextManager[Task]:
        """Open a bar for the length of a `with` block."""
        ...

    def note(self, message: str) -> None:
        """Print one line."""
        ...


class _Silent:
    def advance(self, units: int, **figures: float) -> None:
        """Show nothing."""

    @contextmanager
    def task(self, name: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        """Open a bar that shows nothing."""
        yield self

    def note(self, message: str) -> None:
        """Show nothing."""


SILENT: Progress = _Silent()
