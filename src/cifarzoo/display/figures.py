"""Figures of matplotlib that a notebook shows by themselves; needs the ``plots`` extra."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["ShownFigure"]


class ShownFigure(Figure):
    """A figure that belongs to nobody: no pyplot, so no window and no global state.

    A notebook shows it where it is the last line of a cell, with or without ``%matplotlib``.
    """

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()
