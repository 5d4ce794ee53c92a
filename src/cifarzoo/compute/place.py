"""Where and how precisely a computation runs: device, precision, autocast."""

from __future__ import annotations

import contextlib
import os
from typing import Literal

import torch

from cifarzoo.compute.machine import computes_bfloat16
from cifarzoo.errors import ArgumentError

__all__ = [
    "Precision",
    "autocast",
    "compile_pays",
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
