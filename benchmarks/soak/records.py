"""Mutated weights and checkpoints, read in forked children, so that a crash counts as one."""

from __future__ import annotations

import functools
import gc
import hashlib
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from found import Found
from mutations import change_bytes, change_header, change_tree, rewrite_pickle
from small import register_small

import cifarzoo
from cifarzoo import EpochRecord, ImageSet, Logger, Recipe, Trainer
from cifarzoo.errors import CheckpointError, CifarZooError
from cifarzoo.zoo.weights import facts_sha256

MEMORY = 3 << 30  # bytes that a child may take beyond those of its parent
SECONDS = 20  # of a processor for a file; one that sleeps has ten times as many
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a disk would take most of the time
TOGETHER = 200  # files in a child; one that dies of a file leaves the rest to the next
COUNTED = {
    "unwritten": "that nobody can write",
    "refused": "refused",
    "as before": "read as before",
    "changed": "read with what the stranger wrote and signed",
}
PROBLEMS = {
    "foreign": "foreign errors",
    "crashed": "crashes",
    "hung": "hangs",
    "spoiled": "wrong results",
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
        pixels = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
        self.images = ImageSet(pixels, torch.arange(8), cifarzoo.CIFAR10_CLASSES)
        self.recipe = Recipe(epochs=2, batch_size=4, ema_decay=0.9, optimizer="adam")
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
        model = cifarzoo.create_model("small", seed=0)
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
                else cifarzoo.create_model("small", pretrained=path)
            )
            card = cifarzoo.get_card(model).to_dict()
            return [bytes_of(model.state_dict()), card, facts.get("metadata")]
        finally:
            path.unlink()

    def resume(self, content: bytes) -> Any:
        """What comes of a run that goes on from a checkpoint."""
        run = self.folder / str(os.getpid())
        run.mkdir()
        (run / "checkpoint.pt").write_bytes(content)
        trainer = self.trainer(run)
        before = bytes_of(trainer.model.state_dict())
        try:
            history = trainer.fit(self.images, resume=True)
        except CheckpointError:
            if bytes_of(trainer.model.state_dict()) != before:
                raise RuntimeError("refused, and the model was changed") from None
            raise
        finally:
            for path in run.iterdir():
                path.unlink()
            run.rmdir()
        state = bytes_of(trainer.model.state_dict())
        return [state, history.column("train_loss"), history.column("learning_rate")]


class Kind(NamedTuple):
    """What makes mutations of a file, what reads them, and whether it may take them as changed."""

    original: bytes
    make: Callable[[random.Random], bytes]
    read: Callable[[bytes], Any]
    may_change: bool


def kinds(subjects: Subjects) -> dict[str, Kind]:
    """The kinds of mutations, by name."""

    def tree(draw: random.Random) -> bytes:
        changed = copy_of(subjects.tree)
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

    resume = subjects.resume
    return {
        "weights, bytes": Kind(weights, lambda d: change_bytes(weights, d), read, False),
        "weights, facts": Kind(
            weights, lambda d: change_header(weights, d, facts_sha256), read, True
        ),
        "torch file, bytes": Kind(other, lambda d: change_bytes(other, d), read_torch, False),
        "torch file, pickle": Kind(other, lambda d: rewrite_pickle(other, d), read_torch, True),
        "torch file, fields": Kind(other, foreign, read_torch, True),
        "checkpoint as weights": Kind(checkpoint, tree, read_torch, True),
        "checkpoint, bytes": Kind(checkpoint, lambda d: change_bytes(checkpoint, d), resume, False),
        "checkpoint, pickle": Kind(
            checkpoint, lambda d: rewrite_pickle(checkpoint, d), resume, True
        ),
        "checkpoint, fields": Kind(checkpoint, tree, resume, True),
    }


def copy_of(tree: Any) -> Any:
    """Dicts and lists of their own, with the same tensors, which `change_tree` only exchanges."""
    if isinstance(tree, dict):
        return {key: copy_of(part) for key, part in tree.items()}
    return [copy_of(part) for part in tree] if isinstance(tree, list) else tree


def bytes_of(state: Mapping[str, torch.Tensor]) -> str:
    """A checksum of names, kinds, shapes and numbers."""
    running = hashlib.sha256()
    for name, tensor in state.items():
        running.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
        running.update(tensor.numpy().tobytes())
    return running.hexdigest()


def in_memory(tree: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def text_of(found: Any) -> str:
    """What was read, so that it can be compared."""
    return json.dumps(found, default=str)


def outcome_of(make: Callable[[], bytes], read: Callable[[bytes], Any], expected: str) -> str:
    """What becomes of a file."""
    try:
        content = make()
    except Exception:  # what neither JSON nor torch can write
        return "unwritten"
    try:
        found = text_of(read(content))
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
    """What becomes of mutations, in a child of their own, until one of them ends it.

    The last file that a child reads is the original: no other may have changed how it is read.
    """
    end, write = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
            makes = [functools.partial(kind.make, random.Random(seed)) for seed in seeds]
            for make in (*makes, lambda: kind.original):
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                signal.alarm(10 * SECONDS)
                os.write(write, f"{outcome_of(make, kind.read, expected)}\n".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(end, "rb") as pipe:
        found = pipe.read().decode().splitlines()
    _, status = os.waitpid(process, 0)
    if len(found) <= len(seeds):
        late = (signal.SIGALRM, signal.SIGPROF)
        is_late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in late
        return [*found, "hung" if is_late else f"crashed with status {status}"]
    last = found.pop()
    return (
        found if last == "as before" else [*found, f"spoiled the process: the original was {last}"]
    )


def soak(count: int, seed: int) -> Found:
    """Mutate and read ``count`` files, of all kinds in turn.

    Args:
        count: How many.
        seed: Of the mutations.
    """
    warnings.simplefilter("ignore")
    logging.disable()
    register_small()
    found = Found()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        gc.freeze()  # what is there already is not looked through again in each child
        chosen = kinds(Subjects(Path(folder))).items()
        turns = itertools.cycle((n, kind, text_of(kind.read(kind.original))) for n, kind in chosen)
        while found.counts["files"] < count and not found.is_enough:
            name, kind, expected = next(turns)
            first = seed * 1_000_003 + found.counts["files"]
            seeds = range(first, first + min(TOGETHER, count - found.counts["files"]))
            for each, outcome in enumerate(outcomes(kind, seeds, expected), first):
                found.counts["files"] += 1
                _count(outcome, f"{name}, draw {each}", found, may_change=kind.may_change)
    return found


def _count(outcome: str, where: str, found: Found, *, may_change: bool) -> None:
    if outcome in COUNTED:
        found.counts[COUNTED[outcome]] += 1
        if outcome == "changed" and not may_change:
            found.problem("wrong results", where)
    else:
        found.problem(PROBLEMS[outcome.partition(" ")[0]], f"{where}: {outcome}")
