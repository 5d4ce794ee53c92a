"""The soak's parts, for a moment; `make soak` runs them for longer, and keeps its counts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LEAST = {
    "kills": ("processes killed", 300),
    "records": ("files", 20_000),
    "recipes": ("valid recipes", 500),
    "commands": ("command lines", 500),
    "servers": ("downloads", 300),
    "ranks": ("processes killed", 10),
    "threads": ("calls", 500),
    "growth": ("epochs", 200),
    "fuzz": ("executions", 10_000),
}
"""What the counts that are kept have at least."""


def soak(*parts: str, output: Path) -> dict[str, Any]:
    """Run some parts; their results."""
    command = [sys.executable, str(ROOT / "benchmarks" / "soak"), *parts]
    command += ["--seed", "0", "--output", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^seed 0$", result.stdout, re.MULTILINE)
    found: dict[str, Any] = json.loads(output.read_text())
    assert {part.partition("=")[0] for part in parts} == found.keys()
    return found


@pytest.mark.slow
def test_a_little_of_each_attack_finds_nothing(tmp_path: Path) -> None:
    counts = ("kills=2", "records=50", "recipes=8", "commands=3", "servers=8", "disk=4")
    found = soak(*counts, "threads=11", output=tmp_path / "found.json")
    assert found["kills"]["counts"]["processes killed"] == 2
    assert found["commands"]["counts"]["command lines"] == 3
    assert not any(any(each["problems"].values()) for each in found.values())


@pytest.mark.slow
def test_a_little_of_the_slow_attacks_finds_nothing(tmp_path: Path) -> None:
    found = soak("kills=4", "commands=10", "ranks=3", "growth=20", output=tmp_path / "found.json")
    assert sum(found["ranks"]["counts"].values()) >= 3
    assert not any(any(each["problems"].values()) for each in found.values())


def test_the_documented_counts_are_those_that_were_promised() -> None:
    path = ROOT / "benchmarks" / "results" / "reliability.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {
        name for name, (what, least) in LEAST.items() if found[name]["counts"][what] < least
    } == set()
    assert not any(any(each["problems"].values()) for each in found.values())
