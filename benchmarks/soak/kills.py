"""Trainings that are killed at random moments and during writes, until nothing may be lost.

Each run is killed some times, goes on after each, and must end with the weights, the history and
the files of a run that nobody killed. Epochs that were told before a kill must be in the checkpoint
after it.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
from found import Found

from cifarzoo import (
    Augmentation,
    CSVLogger,
    EpochRecord,
    Logger,
    Recipe,
    Trainer,
    create_model,
    load_model,
    load_sample,
)
from cifarzoo.errors import CifarZooError
from cifarzoo.training.checkpoint import read_checkpoint
from cifarzoo.zoo.weights import tensors_sha256

__all__ = ["EPOCHS", "Run", "soak", "train"]

EPOCHS = 4
_RECIPE = Recipe(
    epochs=EPOCHS, batch_size=50, learning_rate=0.02, augmentation=Augmentation("random")
)
_IMAGES = range(200)
_FILES = {"run.json", "recipe.toml", "checkpoint.pt", "weights.safetensors", "history.json"}
_KILLS_A_RUN = 5


class _Tell(Logger):
    """Sends each epoch's number: its checkpoint is written by then."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def on_epoch(self, record: EpochRecord) -> None:
        self.pipe.send(record.epoch)


def train(folder: str, pipe: Connection) -> None:
    """In a child: begin the run in ``folder``, or continue it."""
    torch.set_num_threads(1)
    images = load_sample("train").subset(_IMAGES)
    path = Path(folder)
    trainer = Trainer(
        create_model("simple", seed=0),
        _RECIPE,
        device="cpu",
        precision="float32",
        output=path,
        loggers=[CSVLogger(path / "history.csv"), _Tell(pipe)],
    )
    pipe.send(0)
    history = trainer.fit(images, images, resume=(path / "checkpoint.pt").exists())
    state = tensors_sha256(trainer.model.state_dict())
    kept = [{k: v for k, v in r.items() if "second" not in k} for r in history.to_list()]
    pipe.send((state, kept))


def soak(count: int, seed: int, context: ForkServerContext) -> Found:
    """Kill trainings ``count`` times.

    Args:
        count: How many processes are really killed.
        seed: Of the moments.
        context: Starts the children.
    """
    found, draw = Found(), random.Random(f"kills {seed}")
    with tempfile.TemporaryDirectory() as base:
        expected = Run(Path(base, "first"), context).finish()
        whole = Run(Path(base, "whole"), context)  # the first one waited for the server
        if whole.finish() != expected:
            found.problem("wrong results", "two runs without kills end differently")
        while found.counts["processes killed"] < count and not found.is_enough:
            found.counts["runs"] += 1
            run = Run(Path(base, str(found.counts["runs"])), context)
            for _ in range(min(_KILLS_A_RUN, count - found.counts["processes killed"])):
                # half of them when a file is being written
                delay = None if draw.random() < 0.5 else draw.uniform(0, whole.seconds)
                if not run.kill(delay, draw):
                    break
                found.counts["processes killed"] += 1
                found.counts["of them during a write"] += run.has_parts()
                run.check(found)
            if run.finish() != expected:
                found.problem("wrong results", f"{run.folder.name}: it ended otherwise")
            run.check(found, is_over=True)
    return found


class Run:
    """A run in a folder, and the child that trains it."""

    def __init__(self, folder: Path, context: ForkServerContext) -> None:
        self.folder, self.context = folder, context
        self.told = 0  # finished epochs
        self.seconds = 0.0  # from the beginning of the training to its end

    def start(self) -> tuple[Any, Connection]:
        """A child that has come to its training."""
        here, there = self.context.Pipe()
        child = self.context.Process(target=train, args=(str(self.folder), there))
        child.start()
        there.close()
        return child, here

    def finish(self) -> Any:
        """Let a child train to the end; returns its weights' checksum and its history."""
        child, pipe = self.start()
        found = None
        try:
            found = pipe.recv()
            began = time.monotonic()
            while not isinstance(found, tuple):
                found = pipe.recv()
            self.seconds = time.monotonic() - began
        except EOFError:
            found = None
        child.join()
        return found

    def kill(self, delay: float | None, draw: random.Random) -> bool:
        """Start a child; kill it after ``delay`` seconds, or when it writes. Whether it was."""
        child, pipe = self.start()
        if pipe.poll(60):
            pipe.recv()
        deadline = time.monotonic() + (60 if delay is None else delay)
        while time.monotonic() < deadline and child.is_alive():
            if delay is None and self.has_parts():
                time.sleep(draw.uniform(0, 0.002))
                break
            time.sleep(0.0002)
        child.kill()
        child.join()
        while pipe.poll():
            try:
                found = pipe.recv()
            except EOFError:
                break
            self.told = max(self.told, found if isinstance(found, int) else EPOCHS)
        return bool(child.exitcode == -9)

    def has_parts(self) -> bool:
        """Whether a file is being written, or was when its process died."""
        return self.folder.is_dir() and any(".part." in name for name in os.listdir(self.folder))

    def check(self, found: Found, *, is_over: bool = False) -> None:
        """Note what is wrong with the folder."""
        where, epochs = f"run {self.folder.name}", 0
        if (self.folder / "checkpoint.pt").exists():
            try:
                epochs = len(read_checkpoint(self.folder)["records"])
            except CifarZooError as error:
                found.problem("lost epochs", f"{where}: {error}")
        if epochs < self.told:
            text = f"{where}: epoch {self.told} was told, and the checkpoint has {epochs}"
            found.problem("lost epochs", text)
        if is_over:
            for problem in self._problems_at_the_end():
                found.problem("wrong results", f"{where}: {problem}")

    def _problems_at_the_end(self) -> Iterator[str]:
        names = {path.name for path in self.folder.iterdir()}
        if names != _FILES | {"history.csv"}:
            yield f"the folder holds {sorted(names)}"
            return
        rows = (self.folder / "history.csv").read_text().splitlines()
        if [row.split(",")[0] for row in rows[1:]] != [str(1 + epoch) for epoch in range(EPOCHS)]:
            yield f"history.csv has the rows {rows}"
        if len(json.loads((self.folder / "history.json").read_text())) != EPOCHS:
            yield "history.json has other epochs"
        load_model(self.folder / "weights.safetensors")
