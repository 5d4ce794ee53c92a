"""Where and how precisely a computation runs: device, precision, autocast."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cifarzoo.errors import ArgumentError

__all__ = [
    "Precision",
    "autocast",
    "compile_pays",
    "computes_bfloat16",
    "describe_machine",
    "keep_freed_memory",
    "move",
    "peak_memory",
    "resolve_device",
    "resolve_precision",
    "use_fast_layout",
]

Precision = Literal["auto", "float32", "bfloat16"]

_STEPS_WORTH_COMPILING = 3000
_moving = threading.Lock()

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_MMAP_MAX = 65536  # blocks
_DEFAULT_TRIM_THRESHOLD = 64 << 20  # bytes; what glibc's own adaptation ends at


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


def move(model: nn.Module, device: torch.device) -> None:
    """Move ``model`` to ``device``, unless all of it is there; one thread at a time."""
    with _moving:
        if any(tensor.device != device for tensor in (*model.parameters(), *model.buffers())):
            model.to(device)


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


def use_fast_layout(model: nn.Module) -> None:
    """Give every parameter the memory format its layer computes fastest in.

    That is channels_last, except for parts of a network that say otherwise (layers.py).
    """
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if module.__dict__.get("prefers_contiguous_on_cpu") and _is_on_cpu(module):
            module.to(memory_format=torch.contiguous_format)


@contextlib.contextmanager
def keep_freed_memory(device: torch.device) -> Iterator[None]:
    """Within the block, let the C library keep what is freed instead of returning it.

    A step frees and allocates the same activations as the one before. glibc hands large blocks back
    to the system each time, and the system clears every page again: 9 % of a step of ``deep_bn``,
    half or more of one of ``airbench94`` with batches of 2000. Does nothing on other devices and C
    libraries.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)  # the heap for all: a mapping of its own is gone when freed
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
        libc.malloc_trim(0)


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that ``work`` needs at its peak beyond what is held before; None where nobody knows.

    On CUDA by torch's own count. On Linux by the most memory the process ever had resident, which
    other threads of the process add to.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        return None
    libc.malloc_trim(0)  # pages that are free already would be used again, unnoticed
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        before = _resident("VmRSS")
        work()
        return _resident("VmHWM") - before
    except OSError:  # a container may forbid it
        return None


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


def _is_on_cpu(module: nn.Module) -> bool:
    return all(parameter.device.type == "cpu" for parameter in module.parameters())


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


@functools.lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library, when it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.gnu_get_libc_version  # noqa: B018  (musl has none)
    except (OSError, AttributeError):
        return None
    return libc


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
