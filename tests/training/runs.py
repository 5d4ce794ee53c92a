"""Short training runs, and how to compare and interrupt them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cifarzoo import Augmentation, History, ImageSet, Logger, Recipe, Trainer, create_model
from cifarzoo.training.history import EpochRecord
from cifarzoo.training.loggers import RunStart, StepProgress

__all__ = [
    "PLAIN",
    "Events",
    "InterruptAt",
    "make_batches",
    "make_trainer",
    "measured",
    "same_state",
    "terminate",
    "weights",
]

PLAIN = Recipe(
    epochs=2,
    batch_size=50,
    learning_rate=0.02,
    scheduler="constant",
    augmentation=Augmentation(),
)
"""Four steps an epoch on 200 images, nothing random but the order."""


def make_trainer(recipe: Recipe = PLAIN, *, model: str = "simple", **options: Any) -> Trainer:
    """A Trainer of a fresh model with fixed parameters, on the CPU in float32."""
    place = {"device": "cpu", "precision": "float32"}
    return Trainer(create_model(model, seed=0), recipe, **{**place, **options})


def make_batches(images: ImageSet, size: int = 50) -> list[tuple[Tensor, Tensor]]:
    """The set's uint8 images and labels in batches, in order."""
    return list(zip(images.images.split(size), images.labels.split(size), strict=True))


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_state(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def measured(history: History) -> list[dict[str, Any]]:
    """The records without what depends on the clock."""
    clock = {"seconds", "images_per_second"}
    return [{k: v for k, v in r.items() if k not in clock} for r in history.to_list()]


class Events(Logger):
    """Remembers everything it is told."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.starts: list[RunStart] = []
        self.progress: list[StepProgress] = []
        self.records: list[EpochRecord] = []
        self.histories: list[History] = []

    def on_start(self, run: RunStart) -> None:
        self.names.append("start")
        self.starts.append(run)

    def on_progress(self, progress: StepProgress) -> None:
        self.names.append("progress")
        self.progress.append(progress)

    def on_epoch(self, record: EpochRecord) -> None:
        self.names.append("epoch")
        self.records.append(record)

    def on_end(self, history: History) -> None:
        self.names.append("end")
        self.histories.append(history)


class InterruptAt(Logger):
    """Presses Ctrl-C after a step; the Trainer must report every step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.place = (epoch, step)

    def on_progress(self, progress: StepProgress) -> None:
        if (progress.epoch, progress.step) == self.place:
            os.kill(os.getpid(), signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> str:
    """Send SIGTERM until the program ends, and return what it wrote to its standard error.

    Python takes a signal that comes before the wait has begun; the program goes on to wait then.
    """
    for _ in range(10):
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=5)[1]
    pytest.fail("the program has not ended")
