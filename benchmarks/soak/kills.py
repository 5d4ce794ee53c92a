"""Trainings that are killed at random moments and during writes, until nothing may be lost.

Each run is killed some times, goes on after each, and must end with the weights, the history and
the files of a run that nobody killed. Epochs that were told before a kill must be in the checkpoint
after it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

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
from cifarzoo.files.writing import file_digest
from cifarzoo.training.checkpoint import read_checkpoint
from cifarzoo.zoo.weights import tensors_sha256

__all__ = ["Counts", "soak"]

_RECIPE = Recipe(epochs=4, batch_size=50, learning_rate=0.02, augmentation=Augmentation("random"))
_IMAGES = range(300)
_FILES = {"run.json", "recipe.toml", "checkpoint.pt", "weights.safetensors", "history.json"}
_KILLS_A_RUN = 5


class _Tell(Logger):
    """Sends each epoch's number: its checkpoint is written by then."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def on_epoch(self, record: EpochRecord) -> None:
        self.pipe.send(record.epoch)


@dataclasses.dataclass
class Counts:
    """What was done, and what was found to be wrong."""

    runs: int = 0
    kills: int = 0
    in_writes: int = 0  # kills that left a part behind
    problems: list[str] = dataclasses.field(default_factory=list)


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


def soak(kills: int, seed: int, context: ForkServerContext) -> Counts:
    """Kill trainings ``kills`` times.

    Args:
        kills: How many processes are really killed.
        seed: Of the moments.
        context: Starts the children.
    """
    counts, draw = Counts(), random.Random(seed)
    with tempfile.TemporaryDirectory() as base:
        expected = _Run(Path(base, "first"), context).finish()
        whole = _Run(Path(base, "whole"), context)  # the first one waited for the server
        if whole.finish() != expected:
            counts.problems.append("two runs without kills end differently")
        while counts.kills < kills and len(counts.problems) < 10:
            counts.runs += 1
            run = _Run(Path(base, str(counts.runs)), context)
            where = f"seed {seed}, run {counts.runs}"
            for _ in range(min(_KILLS_A_RUN, kills - counts.kills)):
                # half of them when a file is being written
                delay = None if draw.random() < 0.5 else draw.uniform(0, whole.seconds)
                if not run.kill(delay, draw):
                    break
                counts.kills += 1
                counts.in_writes += run.has_parts()
                counts.problems += [f"{where}: {each}" for each in run.problems()]
            if run.finish() != expected:
                counts.problems.append(f"{where}: it ended otherwise than a run without kills")
            counts.problems += [f"{where}, at the end: {each}" for each in run.problems(True)]
    return counts


class _Run:
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
            self.told = max(self.told, found if isinstance(found, int) else _RECIPE.epochs)
        return bool(child.exitcode == -9)

    def has_parts(self) -> bool:
        """Whether a file is being written, or was when its process died."""
        return self.folder.is_dir() and any(".part." in name for name in os.listdir(self.folder))

    def problems(self, is_over: bool = False) -> list[str]:
        """What is wrong with the folder."""
        found = []
        epochs = 0
        if (self.folder / "checkpoint.pt").exists():
            epochs = len(read_checkpoint(self.folder)["records"])
        if epochs < self.told:
            found.append(f"epoch {self.told} was told, and the checkpoint has {epochs}")
        if is_over:
            names = {path.name for path in self.folder.iterdir()}
            if names != _FILES | {"history.csv"}:
                found.append(f"the folder holds {sorted(names)}")
            rows = (self.folder / "history.csv").read_text().splitlines()
            if [row.split(",")[0] for row in rows[1:]] != [str(i + 1) for i in range(4)]:
                found.append(f"history.csv has the rows {rows}")
            if len(json.loads((self.folder / "history.json").read_text())) != _RECIPE.epochs:
                found.append("history.json has other epochs")
            file_digest(self.folder / "weights.safetensors")
        return found
