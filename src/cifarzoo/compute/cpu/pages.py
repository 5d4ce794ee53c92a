"""Memory that the C library keeps, and how much a computation needs."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

__all__ = ["keep_freed_memory", "peak_memory"]

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_MMAP_MAX = 65536  # blocks
_DEFAULT_TRIM_THRESHOLD = 64 << 20  # bytes; what glibc's own adaptation ends at
_lock = threading.Lock()
_users = 0


@contextlib.contextmanager
def keep_freed_memory(device: torch.device, *, enabled: bool = True) -> Iterator[None]:
    """Within the block, let the C library keep what is freed instead of returning it.

    A step frees and allocates the same activations as the one before. glibc hands large blocks back
    to the system each time, and the system clears every page again: 9 % of a step of ``deep_bn``,
    half or more of one of ``airbench94`` with batches of 2000. Does nothing on other devices and C
    libraries. The setting is one for the process: where blocks overlap, in several threads or
    nested, the last one that ends puts it back.

    Args:
        device: Where the computation runs.
        enabled: False does nothing.
    """
    libc = _glibc() if enabled and device.type == "cpu" else None
    if libc is None:
        yield
        return
    _count(libc, 1)
    try:
        yield
    finally:
        _count(libc, -1)


def _count(libc: Any, change: int) -> None:
    """Change the number of users; the first one and the last one change the setting."""
    global _users
    with _lock:
        _users += change
        if _users == 1 and change == 1:
            libc.mallopt(
                _M_MMAP_MAX, 0
            )  # the heap for all: a mapping of its own is gone when freed
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        elif _users == 0:
            # what the user has set cannot be asked for, but for where it was set
            libc.mallopt(_M_MMAP_MAX, _setting("MALLOC_MMAP_MAX_", _DEFAULT_MMAP_MAX))
            trim = _setting("MALLOC_TRIM_THRESHOLD_", _DEFAULT_TRIM_THRESHOLD)
            libc.mallopt(_M_TRIM_THRESHOLD, trim)
            libc.malloc_trim(0)


def _setting(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else default


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
