"""What the benchmarks share: the device, its clock, and a description of the machine."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from cifarzoo.compute import machine
from cifarzoo.compute.cpu import library

__all__ = [
    "DEVICE",
    "build_layers",
    "check_names",
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
