"""Mutated weights and checkpoints, read in forked children, so that a crash counts as one."""

from __future__ import annotations

import copy
import io
import itertools
import json
import logging
import os
import random
import resource
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from found import Found
from mutations import change_bytes, change_header, change_tree, rewrite_pickle

import cifarzoo
from cifarzoo import EpochRecord, ImageSet, Logger, Recipe, Trainer
from cifarzoo.errors import CheckpointError, CifarZooError
from cifarzoo.zoo.weights import facts_sha256

MEMORY = 3 << 30  # bytes that a child may take beyond those of its parent
SECONDS = 20  # for a file
TOGETHER = 200  # files in a child; one that dies of a file leaves the rest to the next
COUNTED = {
    "unwritten": "that nobody can write",
    "refused": "refused",
    "as before": "read as before",
    "changed": "read with what the stranger wrote and signed",
}


class _Keep(Logger):
    """Keeps the checkpoint of the first epoch: what goes on from it makes steps."""

    def __init__(self, path: Path) -> None:
        self.path, self.content = path, b""

    def on_epoch(self, record: EpochRecord) -> None:
        """Remember it once."""
        self.content = self.content or self.path.read_bytes()


class Subjects:
    """What is mutated: weights, a checkpoint, and what they give when nobody touches them."""

    def __init__(self, folder: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=generator)
        self.images = ImageSet(pixels, torch.arange(40) % 10, cifarzoo.CIFAR10_CLASSES)
        self.recipe = Recipe(epochs=2, batch_size=20, ema_decay=0.9, optimizer="adam")
        self.folder = folder
        run = folder / "run"
        kept = _Keep(run / "checkpoint.pt")
        self.trainer(run, loggers=[kept]).fit(self.images)
        self.weights = (run / "weights.safetensors").read_bytes()
        model = cifarzoo.load_model(run / "weights.safetensors")
        buffer = io.BytesIO()
        torch.save({"state_dict": model.state_dict(), "epoch": 3, "note": [1, "a"]}, buffer)
        self.foreign = buffer.getvalue()
        self.checkpoint = kept.content
        self.tree = torch.load(io.BytesIO(kept.content), weights_only=True)

    def trainer(self, run: Path, **options: Any) -> Trainer:
        """Of a new network, always the same."""
        model = cifarzoo.create_model("simple", seed=0)
        place = {"device": "cpu", "precision": "float32", "kernels": False}
        return Trainer(model, self.recipe, output=run, **place, **options)

    def read_weights(self, content: bytes, suffix: str) -> Any:
        """All that the library tells of a weights file."""
        path = self.folder / f"{os.getpid()}{suffix}"
        path.write_bytes(content)
        try:
            facts = cifarzoo.read_metadata(path)
            model = (
                cifarzoo.load_model(path)
                if facts
                else cifarzoo.create_model("simple", pretrained=path)
            )
            state = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
            return [state, cifarzoo.get_card(model).to_dict(), facts.get("metadata")]
        finally:
            path.unlink()

    def resume(self, content: bytes) -> Any:
        """What comes of a run that goes on from a checkpoint."""
        run = self.folder / str(os.getpid())
        run.mkdir()
        (run / "checkpoint.pt").write_bytes(content)
        trainer = self.trainer(run)
        before = copy.deepcopy(trainer.model.state_dict())
        try:
            history = trainer.fit(self.images, resume=True)
        except CheckpointError:
            state = trainer.model.state_dict()
            same = all(torch.equal(before[name], state[name]) for name in before)
            if not same:
                raise RuntimeError("refused, and the model was changed") from None
            raise
        finally:
            for path in run.iterdir():
                path.unlink()
            run.rmdir()
        state = {name: tensor.tolist() for name, tensor in trainer.model.state_dict().items()}
        return [state, history.column("train_loss"), history.column("learning_rate")]


Kind = tuple[Callable[[random.Random], bytes], Callable[[bytes], Any], bool]


def kinds(subjects: Subjects) -> dict[str, Kind]:
    """By name: what makes a mutation, what reads it, and whether it may be taken as changed."""

    def tree(draw: random.Random) -> bytes:
        changed = copy.deepcopy(subjects.tree)
        for _ in range(draw.choice((1, 1, 3))):
            change_tree(changed, draw, tensors=True)
        return in_memory(changed)

    def foreign(draw: random.Random) -> bytes:
        changed = torch.load(io.BytesIO(subjects.foreign), weights_only=True)
        change_tree(changed, draw, tensors=True)
        return in_memory(changed)

    weights, other, checkpoint = subjects.weights, subjects.foreign, subjects.checkpoint

    def read(content: bytes) -> Any:
        return subjects.read_weights(content, ".safetensors")

    def read_torch(content: bytes) -> Any:
        return subjects.read_weights(content, ".pt")

    return {
        "weights, bytes": (lambda d: change_bytes(weights, d), read, False),
        "weights, facts": (lambda d: change_header(weights, d, facts_sha256), read, True),
        "torch file, bytes": (lambda d: change_bytes(other, d), read_torch, False),
        "torch file, pickle": (lambda d: rewrite_pickle(other, d), read_torch, True),
        "torch file, fields": (foreign, read_torch, True),
        "checkpoint as weights": (tree, read_torch, True),
        "checkpoint, bytes": (lambda d: change_bytes(checkpoint, d), subjects.resume, False),
        "checkpoint, pickle": (lambda d: rewrite_pickle(checkpoint, d), subjects.resume, True),
        "checkpoint, fields": (tree, subjects.resume, True),
    }


def in_memory(tree: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def outcome_of(kind: Kind, seed: int, expected: str) -> str:
    """What becomes of one mutation."""
    make, read, _ = kind
    try:
        content = make(random.Random(seed))
    except Exception:  # what neither JSON nor torch can write
        return "unwritten"
    try:
        found = json.dumps(read(content), default=str)
    except CifarZooError as error:
        str(error).encode()
        return "refused"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [each for each in place if "/cifarzoo/" in each.filename] or place
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return f"foreign {type(error).__name__} at {where}: {str(error)[:80]!a}"
    return "as before" if found == expected else "changed"


def outcomes(kind: Kind, seeds: Sequence[int], expected: str) -> list[str]:
    """What becomes of mutations, in a child of their own, until one of them ends it."""
    end, write = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
            for seed in seeds:
                signal.alarm(SECONDS)
                os.write(write, f"{outcome_of(kind, seed, expected)}\n".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(end, "rb") as pipe:
        found = pipe.read().decode().splitlines()
    _, status = os.waitpid(process, 0)
    if len(found) < len(seeds):
        hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        found.append("hung" if hung else f"crashed with status {status}")
    return found


def soak(count: int, seed: int) -> Found:
    """Mutate and read ``count`` files, of all kinds in turn.

    Args:
        count: How many.
        seed: Of the mutations.
    """
    warnings.simplefilter("ignore")
    logging.disable()
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        subjects = Subjects(Path(folder))
        plain = {
            "weights": json.dumps(subjects.read_weights(subjects.weights, ".safetensors")),
            "torch file": json.dumps(subjects.read_weights(subjects.foreign, ".pt")),
            "checkpoint as": json.dumps(subjects.read_weights(subjects.checkpoint, ".pt")),
            "checkpoint": json.dumps(subjects.resume(subjects.checkpoint)),
        }
        turns = itertools.cycle(kinds(subjects).items())
        while found.counts["files"] < count and not found.is_enough:
            name, mutation = next(turns)
            first = seed * 1_000_003 + found.counts["files"]
            seeds = range(first, first + min(TOGETHER, count - found.counts["files"]))
            expected = next(text for kind, text in plain.items() if name.startswith(kind))
            for each, outcome in enumerate(outcomes(mutation, seeds, expected), first):
                found.counts["files"] += 1
                _count(outcome, f"{name}, draw {each}", found, may_change=mutation[2])
    return found


def _count(outcome: str, where: str, found: Found, *, may_change: bool) -> None:
    kind = outcome.split()[0]
    if outcome in COUNTED:
        found.counts[COUNTED[outcome]] += 1
        if outcome == "changed" and not may_change:
            found.problem("wrong results", where)
    else:
        kinds = {"foreign": "foreign errors", "crashed": "crashes", "hung": "hangs"}
        found.problem(kinds[kind], f"{where}: {outcome}")
