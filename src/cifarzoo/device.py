"""Where and how precisely a computation runs: device, precision, autocast."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from pathlib import Path
from typing import Any, Literal

import torch

from cifarzoo.errors import ArgumentError

__all__ = [
    "Precision",
    "autocast",
    "compile_pays",
    "computes_bfloat16",
    "describe_machine",
    "resolve_device",
    "resolve_precision",
]

Precision = Literal["auto", "float32", "bfloat16"]

_STEPS_WORTH_COMPILING = 3000


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn "auto" into the fastest device present: CUDA, then MPS, then the CPU.

    Raises:
        ArgumentError: The device does not exist on this machine.
    """
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            # torchrun gives each process of a machine its own number, hence its own GPU
            local = os.environ.get("LOCAL_RANK")
            return torch.device("cuda", int(local) if local else torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, ImportError) as error:  # each backend has its own
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"device {str(device)!r} cannot be used here ({reason}); try 'auto' or 'cpu'"
        ) from error
    return resolved


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Turn "auto" into bfloat16 where ``device`` computes it natively, else float32.

    Raises:
        ArgumentError: The precision is none of "auto", "float32", "bfloat16".
    """
    if precision == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    if precision == "float32":
        return torch.float32
    if precision == "bfloat16":
        return torch.bfloat16
    raise ArgumentError(f"precision must be 'auto', 'float32' or 'bfloat16'; got {precision!r}")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has bfloat16 arithmetic in hardware, not merely in emulation."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _processor_computes_bfloat16()


def compile_pays(device: torch.device, steps: int) -> bool:
    """Whether torch.compile wins back its own time within ``steps`` training steps.

    On a GPU the threshold is a cautious guess, not yet measured. On CPUs the fused kernels were
    slower than the plain ones (benchmarks/throughput.py --only compile).
    """
    return device.type == "cuda" and steps >= _STEPS_WORTH_COMPILING


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Mixed precision in ``dtype`` on ``device``; nothing at all for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


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
