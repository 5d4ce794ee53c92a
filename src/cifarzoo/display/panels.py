"""Empty figures with panels, and what is written on them; needs the ``plots`` extra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cifarzoo.errors import MissingExtraError
from cifarzoo.names import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["in_a_line", "panels"]


def panels(
    count: int,
    *,
    width: float,
    height: float,
    columns: int | None = None,
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Any]]:
    """An empty figure with its panels."""
    try:
        import matplotlib.figure  # noqa: F401  (what follows would say less about what is missing)
    except ImportError as error:
        raise MissingExtraError(
            "pictures need matplotlib: pip install 'cifarzoo[plots]'"
        ) from error
    from cifarzoo.display.figures import ShownFigure

    figure = ShownFigure(figsize=(width, height), layout="constrained")
    across = columns or count
    grid = figure.add_gridspec(-(-count // across), across, height_ratios=ratios)
    return figure, [figure.add_subplot(grid[place]) for place in range(count)]


def in_a_line(text: str) -> str:
    """``text`` as it is, in a line: matplotlib takes what stands between $ for mathematics."""
    return one_line(text).replace("$", r"\$")
