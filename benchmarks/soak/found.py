"""What a part of the soak has done and found, and the file that the documentation reads."""

from __future__ import annotations

import collections
import dataclasses
import importlib
import json
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

__all__ = ["KINDS", "LIMIT", "ROOT", "Found", "record", "run_inside"]

KINDS = (
    "lost epochs",  # that were told, and are not in the checkpoint afterwards
    "wrong results",  # a file or answer that was taken and is not the right one
    "crashes",
    "foreign errors",  # of another class than the library's, or without a hint what to do
    "hangs",
    "growth",  # of memory, handles or threads
)
LIMIT = "SOAK_SECONDS"
"""The variable that says after how many seconds a part ends, with what it has done by then."""
_recording = threading.Lock()
_ENOUGH = 20  # problems: a part that has found so many ends


@dataclasses.dataclass
class Found:
    """What was done, how often, and what was found to be wrong."""

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    began: float = dataclasses.field(default_factory=time.monotonic)

    def problem(self, kind: str, text: str) -> None:
        """Note one of `KINDS`."""
        assert kind in KINDS, kind
        self.problems.append((kind, text))

    @property
    def is_enough(self) -> bool:
        """Whether there is no use in going on, or no time."""
        seconds = float(os.environ.get(LIMIT, "inf"))
        return len(self.problems) >= _ENOUGH or time.monotonic() - self.began > seconds


def record(path: Path, part: str, found: Found, **facts: Any) -> None:
    """Put a part's counts into the file, in place of those it had."""
    from machine import describe_machine

    from cifarzoo.files.writing import write_text

    kinds = collections.Counter(kind for kind, _ in found.problems)
    made = {
        **facts,
        "counts": dict(found.counts),
        "problems": {kind: kinds[kind] for kind in KINDS},
        "machine": describe_machine(),
    }
    with _recording:  # two parts may end at once
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_text(path, json.dumps({**results, part: made}, indent=1) + "\n")


def run_inside(part: str, count: int, seed: int, pipe: Connection) -> None:
    """In a child: a part that does everything itself."""
    import torch

    torch.set_num_threads(1)
    pipe.send(importlib.import_module(part).soak(count, seed))
