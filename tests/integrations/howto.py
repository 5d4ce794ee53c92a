"""Runs the code of a how-to page, so that the page and its test cannot differ."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str = "python") -> list[str]:
    """The code blocks of one language in ``docs/howto/PAGE.md``, in the page's order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        code_blocks = importlib.import_module("code_blocks").code_blocks
    found = [code for _, code in code_blocks(DOCS / f"howto/{page}.md", language)]
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
