"""What the benchmarks share: the device, its clock, and a description of the machine."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import torch

import cifarzoo
from cifarzoo.device import computes_bfloat16

__all__ = ["DEVICE", "describe_machine", "synchronize"]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait for a GPU's queue, so that the clock sees the work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def describe_machine() -> dict[str, Any]:
    """Processor, threads, versions: what a number means nothing without."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return {
        "processor": processor,
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "bfloat16": computes_bfloat16(DEVICE),
        "torch": str(torch.__version__),
        "cifarzoo": cifarzoo.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
