"""Say whether the repository is ready to be released under a tag.

Usage: python tools/check_release.py v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def faults(tag: str, root: Path = ROOT) -> list[str]:
    """What has to be mended before ``tag`` can be released; empty when nothing has to."""
    source = (root / "src/cifarzoo/version.py").read_text(encoding="utf-8")
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    version = _find(r'^__version__ = "(.+)"$', source)
    found = []
    if tag != f"v{version}":
        found.append(f"the tag must be v{version}, as version.py has it; got {tag!r}")
    date = _find(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", changes)
    if not date:
        found.append(f"CHANGELOG.md needs a heading '## [{version}] - YYYY-MM-DD'")
    if _find(r"^## \[Unreleased\]\s+((?!## )\S.*)$", changes):
        found.append(f"CHANGELOG.md still lists changes under Unreleased; move them to {version}")
    if _find(r"^version: (.+)$", citation) != version:
        found.append(f"CITATION.cff must say 'version: {version}'")
    if date and _find(r"^date-released: \"?([\d-]+)\"?$", citation) != date:
        found.append(f"CITATION.cff must say 'date-released: {date}', as CHANGELOG.md does")
    return found


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


if __name__ == "__main__":
    problems = faults(sys.argv[1] if len(sys.argv) > 1 else "")
    print("\n".join(problems) or f"ready to be released: {sys.argv[1]}")
    sys.exit(bool(problems))
