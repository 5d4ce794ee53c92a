"""Progress bars of rich, on a terminal and in a notebook."""

from __future__ import annotations

import io
import time
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

__all__ = ["is_notebook", "moving_bar"]

_STYLE = "margin:0;white-space:pre;overflow-x:auto;line-height:normal;font-family:monospace"
_EVERY = 0.2  # seconds between two drawings in a notebook


def is_notebook() -> bool:
    """Whether this program runs in a notebook that can show a bar."""
    return Console().is_jupyter


def moving_bar(*columns: ProgressColumn, console: Console, **options: Any) -> Progress:
    """A bar where it can be drawn, on a terminal or in a notebook; elsewhere one that is not seen.

    Args:
        *columns: Of the bar.
        console: Where to draw.
        **options: As `rich.progress.Progress` takes them.
    """
    if console.is_jupyter:
        return _NotebookBar(*columns, console=console, **options)
    return Progress(*columns, console=console, disable=not console.is_terminal, **options)


class _NotebookBar(Progress):
    """A bar that takes the place of its own output, from the thread that moves it.

    The one that rich draws in notebooks needs ipywidgets, and leaves an empty one in what is saved.
    """

    _output: Any = None
    _drawn = 0.0

    def start(self) -> None:
        """Draw it for the first time."""
        from IPython.display import display

        self._output = display(self._picture(), raw=True, display_id=True)

    def stop(self) -> None:
        """Draw the end, or take the bar away."""
        if self._output is not None:
            gone = {"text/plain": "", "text/html": ""}
            self._output.update(gone if self.live.transient else self._picture(), raw=True)
            self._output = None

    def refresh(self) -> None:
        """Draw it as it is now."""
        if self._output is not None:
            self._drawn = time.monotonic()
            self._output.update(self._picture(), raw=True)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Move it."""
        super().update(task_id, **changes)
        self._redraw()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move it on."""
        super().advance(task_id, advance)
        self._redraw()

    def _redraw(self) -> None:
        if time.monotonic() - self._drawn >= _EVERY:
            self.refresh()

    def _picture(self) -> dict[str, str]:
        page = Console(record=True, file=io.StringIO(), width=100, force_jupyter=False)
        page.print(self.get_renderable())
        html = page.export_html(
            inline_styles=True, clear=False, code_format=f'<pre style="{_STYLE}">{{code}}</pre>'
        )
        return {"text/html": html, "text/plain": page.export_text().rstrip()}
