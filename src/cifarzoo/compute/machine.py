"""The machine at hand: what it is, its versions, and whether it computes in bfloat16."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch

from cifarzoo.version import __version__

__all__ = ["computes_bfloat16", "describe_machine", "library_versions"]


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a time means nothing without: processor, threads, device, native bfloat16."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return {
        "processor": processor,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "bfloat16": computes_bfloat16(device),
    }


def library_versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "cifarzoo": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has bfloat16 arithmetic in hardware, not merely in emulation."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _processor_computes_bfloat16()


@functools.lru_cache(maxsize=1)
def _processor_computes_bfloat16() -> bool:
    query = getattr(torch.cpu, "get_capabilities", None)  # torch >= 2.10
    if query is not None:
        found = query()
        return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:  # not Linux: nothing to ask, so the safe answer
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
