"""Progress bars for terminals and notebooks, with rate and time left, through rich."""

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
    """Show a download bar on standard error, or in the notebook, while the block runs.

    Nothing is shown where standard error is no terminal.

    Args:
        title: What is being downloaded.
        console: Where to draw; standard error unless given.
    """
    if console is None and not _is_seen():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from cifarzoo.display.bar import moving_bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with moving_bar(*columns, console=console or Console(stderr=True)) as bar:
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
    if total == 0 or (console is None and not _is_seen()):
        yield lambda more: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from cifarzoo.display.bar import moving_bar

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")

    title_column = TextColumn("{task.description}")
    columns = (title_column, BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    # what goes to standard output meanwhile may go to a file, so it is not caught
    drawn = console or Console(stderr=True)
    with moving_bar(*columns, console=drawn, redirect_stdout=False, transient=True) as bar:
        task = bar.add_task(escape(title), total=total)
        yield lambda more: bar.advance(task, more)


def _is_seen() -> bool:
    """Whether somebody looks: at a terminal, or at a notebook."""
    if sys.stderr.isatty():
        return True
    if "ipykernel" not in sys.modules:
        return False
    from cifarzoo.display.bar import is_notebook

    return is_notebook()
