"""The code blocks of a page, for what runs them as they stand there: programs and tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def code_blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """The heading above each code block of one language, such as "{testcode}", and its code."""
    heading, fence, code, is_wanted = "", "", "", False
    for line in page.read_text(encoding="utf-8").splitlines(keepends=True):
        text = line.rstrip()
        if fence:
            if text != fence:
                code += line
                continue
            if is_wanted:
                yield heading, code
            fence = ""
        elif text.startswith("```"):
            name = text.lstrip("`")
            fence, code, is_wanted = text.removesuffix(name), "", name == language
        elif text.startswith("#"):
            heading = text.lstrip("# ")
