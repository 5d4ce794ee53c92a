"""A long training: memory, handles and threads of its process stay as they are."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
from pathlib import Path

from found import Found

from cifarzoo import (
    Augmentation,
    CSVLogger,
    EpochRecord,
    Logger,
    Recipe,
    Trainer,
    create_model,
    load_sample,
)

__all__ = ["soak"]

_MEMORY = 8 << 20  # bytes; allocators keep some more now and then
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Measure(Logger):
    """What the process holds at the end of each epoch."""

    def __init__(self) -> None:
        self.memory: list[int] = []
        self.handles: list[int] = []
        self.threads: list[int] = []

    def on_epoch(self, record: EpochRecord) -> None:
        """Take the three numbers."""
        self.memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE)
        self.handles.append(len(os.listdir("/proc/self/fd")))
        self.threads.append(len(os.listdir("/proc/self/task")))


def soak(count: int, seed: int) -> Found:
    """Train ``count`` epochs, with a checkpoint after each; the first fifth does not count.

    Args:
        count: How many.
        seed: Of the training.
    """
    found, measure = Found(), Measure()
    recipe = Recipe(
        epochs=count,
        batch_size=50,
        augmentation=Augmentation("random", policies=[{"name": "trivial_augment"}]),
        ema_decay=0.9,
        seed=seed,
    )
    images = load_sample("train").subset(range(300))
    with tempfile.TemporaryDirectory() as base:
        loggers = [CSVLogger(Path(base, "history.csv")), measure]
        Trainer(
            create_model("simple", seed=0),
            recipe,
            device="cpu",
            precision="float32",
            output=Path(base, "run"),
            loggers=loggers,
        ).fit(images, images)
    early = slice(count // 5, 2 * count // 5)
    late = slice(-(count // 5), None)
    memory = statistics.median(measure.memory[late]) - statistics.median(measure.memory[early])
    handles = max(measure.handles[late]) - max(measure.handles[early])
    threads = max(measure.threads[late]) - max(measure.threads[early])
    found.counts["epochs"] = len(measure.memory)
    found.counts["KiB more memory at the end"] = round(memory / 1024)
    found.counts["more handles"] = handles
    found.counts["more threads"] = threads
    if memory > _MEMORY or handles > 0 or threads > 0:
        text = f"{memory:,} bytes, {handles} handles, {threads} threads more"
        found.problem("growth", f"{text} ({threading.active_count()} threads of Python)")
    return found
