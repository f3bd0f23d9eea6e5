"""How far a command is, on stderr, where that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Counter:
    """What counts what is done."""

    progress: Progress
    task: TaskID

    def add(self, count: int) -> None:
        self.progress.advance(self.task, count)

    def set(self, done: int, total: int) -> None:
        self.progress.update(self.task, completed=done, total=total)


@contextmanager
def counting(what: str, things: str, total: int | None = None) -> Iterator[Counter]:
    """A bar that counts `things` while it is open, of `total` if that is known."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(things),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        yield Counter(progress, progress.add_task(what, total=total))
