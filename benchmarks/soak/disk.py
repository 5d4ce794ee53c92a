"""Disks that become full: an error of ours, the older file still whole, and no epoch lost.

A limit for the size of files (RLIMIT_FSIZE) ends a write anywhere in a file. A small file system
in memory (tmpfs) is really full; only root may make one, so others skip that half.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
from found import Found
from kills import Run, train

from cifarzoo import create_model, load_model, save_weights
from cifarzoo.errors import OutputError
from cifarzoo.zoo.weights import tensors_sha256

__all__ = ["soak"]

_LIMIT = 120  # seconds for a child
_LARGEST = 1_000_000  # bytes; a checkpoint of the training has about 700,000


def limited(size: int, work: str, folder: str, pipe: Connection) -> None:
    """In a child: train or save weights, with files of no more than ``size`` bytes; 0 for any."""
    torch.set_num_threads(1)
    if size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        if work == "train":
            train(folder, pipe)
        else:
            save_weights(create_model("simple", seed=1), Path(folder, "weights.safetensors"))
        pipe.send("done")
    except OutputError:
        pipe.send("refused")
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def soak(count: int, seed: int, context: ForkServerContext) -> Found:
    """Fill the disk ``count`` times: half of the times by a limit, half of them really.

    Args:
        count: How many writes there are that may fail.
        seed: Of the sizes.
        context: Starts the children.
    """
    found, draw = Found(), random.Random(f"disk {seed}")
    first = tensors_sha256(create_model("simple", seed=0).state_dict())
    with tempfile.TemporaryDirectory() as base:
        expected = Run(Path(base, "whole"), context).finish()
        for number in range(count):
            if found.is_enough:
                break
            size = draw.randint(500, _LARGEST)
            folder = Path(base, str(number))
            folder.mkdir()
            is_real = number % 2 == 1
            with contextlib.ExitStack() as stack:
                if is_real and not stack.enter_context(small_disk(folder, size)):
                    found.counts["skipped, for want of a small disk"] += 1
                    continue
                found.counts["full disks" if is_real else "limits of files"] += 1
                limit = 0 if is_real else size
                if draw.random() < 0.5:
                    _try_weights(folder, limit, first, found, context)
                else:
                    _try_training(folder, limit, expected, found, context)
    return found


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a file system of ``size`` bytes while the block runs; yields whether that worked."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root or subprocess.run(command, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _try_weights(
    folder: Path, limit: int, first: str, found: Found, context: ForkServerContext
) -> None:
    """Weights are written over others, which must be there when that fails."""
    path = folder / "weights.safetensors"
    try:
        save_weights(create_model("simple", seed=0), path)
    except OutputError:  # not even these fit
        found.counts["writes refused"] += 1
        _check_names(folder, set(), found)
        return
    end = _run(limit, "save", folder, context)[-1]
    _check_end(end, folder, found)
    if end == "refused" and tensors_sha256(load_model(path).state_dict()) != first:
        found.problem("wrong results", f"{folder.name}: the older weights are not there any more")
    _check_names(folder, {path.name}, found)


def _try_training(
    folder: Path, limit: int, expected: Any, found: Found, context: ForkServerContext
) -> None:
    """A training runs into the end of the disk, and goes on where there is room."""
    run = Run(folder / "run", context)
    told = _run(limit, "train", run.folder, context)
    _check_end(told[-1], folder, found)
    run.told = max((each for each in told if isinstance(each, int)), default=0)
    run.check(found)
    if limit and (run.folder / "checkpoint.pt").exists():
        if run.finish() != expected:
            found.problem("wrong results", f"{folder.name}: it ended otherwise")
        run.check(found, is_over=True)


def _check_end(end: Any, folder: Path, found: Found) -> None:
    if end == "refused":
        found.counts["writes refused"] += 1
    elif end in ("hangs", "crashes"):
        found.problem(end, folder.name)
    elif end != "done":
        found.problem("foreign errors", f"{folder.name}: {end}")


def _check_names(folder: Path, names: set[str], found: Found) -> None:
    left = {path.name for path in folder.iterdir()} - names
    if left:
        found.problem("wrong results", f"{folder.name}: {sorted(left)} is left behind")


def _run(limit: int, work: str, folder: Path, context: ForkServerContext) -> list[Any]:
    """All that a child tells; last "done", "refused", "hangs", "crashes" or an error."""
    here, there = context.Pipe()
    child = context.Process(target=limited, args=(limit, work, str(folder), there))
    child.start()
    there.close()
    told: list[Any] = []
    with contextlib.suppress(EOFError):
        while here.poll(_LIMIT):
            told.append(here.recv())
    is_hanging = child.is_alive() and not (told and isinstance(told[-1], str))
    if is_hanging:
        child.kill()
        told.append("hangs")
    child.join()
    if not (told and isinstance(told[-1], str)):
        told.append("crashes")
    return told
