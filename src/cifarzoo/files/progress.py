"""Terminal progress bars with rate and time left, through rich."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Advance", "byte_bar", "count_bar"]

Advance = Callable[[int, int | None], None]
"""Called with the bytes done so far and the total, None while unknown."""


@contextlib.contextmanager
def byte_bar(title: str, console: Console | None = None) -> Iterator[Advance]:
    """Show a download bar on standard error while the block runs; nothing when it is no terminal.

    Args:
        title: What is being downloaded.
        console: Where to draw; standard error unless given.
    """
    if console is None and not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as bar:
        task = bar.add_task(escape(title), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def count_bar(
    title: str, total: int, console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a bar of things done, with rate and time left, on standard error while the block runs.

    Args:
        title: What the things are.
        total: How many there are; no bar for 0, nor when standard error is no terminal.
        console: Where to draw; standard error unless given.

    Yields:
        To be called with how many more are done.
    """
    if total == 0 or (console is None and not sys.stderr.isatty()):
        yield lambda more: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")

    title_column = TextColumn("{task.description}")
    columns = (title_column, BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    # what goes to standard output meanwhile may go to a file, so it is not caught
    drawn = console or Console(stderr=True)
    with Progress(*columns, console=drawn, redirect_stdout=False, transient=True) as bar:
        task = bar.add_task(escape(title), total=total)
        yield lambda more: bar.advance(task, more)
