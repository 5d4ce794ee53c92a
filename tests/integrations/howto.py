"""Runs the code of a how-to page, so that the page and its test cannot differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs/howto"


def blocks(page: str, language: str = "python") -> list[str]:
    """The code blocks of one language in ``docs/howto/PAGE.md``, in the page's order."""
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/howto/{page}.md has no code in {language}"
    return found


def run(page: str, *, only: str = "", **known: Any) -> dict[str, Any]:
    """Run the Python blocks of a page one after the other; returns the names they leave.

    Args:
        page: Name of the page, without folder and ending.
        only: Leave out the blocks without this text.
        known: Names that the page takes as given.
    """
    names: dict[str, Any] = {"__name__": page, **known}
    for block in blocks(page):
        if only in block:
            exec(compile(block, f"docs/howto/{page}.md", "exec"), names)
    return names
