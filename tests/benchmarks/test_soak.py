"""The soak's parts, for a moment; `make soak` runs them for longer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_is_lost_in_a_few_kills_and_a_few_odd_command_lines() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "soak")]
    command += ["--kills", "4", "--lines", "12", "--seed", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^4 processes killed in .*: 0 problems", result.stdout, re.MULTILINE)
    assert re.search(r"^12 command lines, .*: 0 problems", result.stdout, re.MULTILINE)
