"""What the benchmarks share: the device, its clock, and a description of the machine."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from cifarzoo.compute import machine
from cifarzoo.compute.cpu import library

__all__ = [
    "DEVICE",
    "build_layers",
    "check_names",
    "check_others",
    "describe_machine",
    "is_this_machine",
    "synchronize",
]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_names(
    parser: argparse.ArgumentParser, option: str, names: Iterable[str], known: Iterable[str]
) -> None:
    """End with a message where a name is not known, before anything is measured."""
    if unknown := sorted({*names} - {*known}):
        parser.error(f"{option}: there is no {unknown[0]!r}; there are {', '.join(known)}")


def check_others(
    parser: argparse.ArgumentParser,
    output: Path,
    others: Iterable[str],
    described: Mapping[str, Any],
    *,
    rounds: int | None = None,
) -> None:
    """End with a message before results of this machine come beside ``others`` of another one.

    Args:
        parser: That of the program.
        output: The file of all of them.
        others: What it holds and what is not measured now.
        described: What the file says of their machine; and of their rounds, if those count.
        rounds: Those of this time.
    """
    is_alike = is_this_machine(described) and rounds in (None, described.get("rounds"))
    if (names := ", ".join(others)) and not is_alike:
        way = "another machine" if rounds is None else "another machine, or other rounds"
        parser.error(f"{output} holds figures of {way} ({names}); measure all, or give --output")


def synchronize() -> None:
    """Wait for a GPU's queue, so that the clock sees the work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def build_layers() -> None:
    """Compile the layers in C, as long trainings do; what is measured is too short for it."""
    if DEVICE.type == "cpu":
        library.build()


def describe_machine() -> dict[str, Any]:
    """Machine, versions, day: what a number means nothing without."""
    return {
        **machine.describe_machine(DEVICE),
        **machine.library_versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def is_this_machine(described: Mapping[str, Any]) -> bool:
    """Whether `describe_machine` was called on one like this; versions and the day may differ."""
    return machine.describe_machine(DEVICE).items() <= described.items()
