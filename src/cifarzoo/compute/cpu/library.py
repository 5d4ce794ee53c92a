"""The layers in C, compiled on the machine they run on.

The machine's C compiler makes them once, in some seconds, in the user's cache folder.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from cifarzoo.errors import CifarZooError
from cifarzoo.files.writing import atomic_path, cache_directory

__all__ = ["build", "find"]

_SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in (
        *("kernels.c", "norm.h", "depthwise.h", "pool.h", "windows.h"),
        *("lookup.h", "winograd.h", "pixels.h", "tiles.h"),
    )
)
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-lm")
_SECONDS = 120  # for the compiler

_compiled: ctypes.CDLL | None = None
_is_sought = False


def find() -> ctypes.CDLL | None:
    """The compiled layers, if `build` has made them, now or in an earlier process."""
    global _compiled, _is_sought
    if not _is_sought:
        _is_sought = True
        path = _place()
        if path is not None and path.is_file():
            _compiled = _load(path)
    return _compiled


def build() -> bool:
    """Compile the layers, unless they are; whether they are there now."""
    global _compiled
    if find() is not None:
        return True
    path, compiler = _place(), _compiler()
    if path is None or compiler is None:
        return False
    try:
        with atomic_path(path) as part:
            command = [compiler, str(_SOURCES[0]), "-o", str(part), *_FLAGS]
            subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError, CifarZooError) as error:
        logging.getLogger("cifarzoo").debug("kernels.c is not compiled: %s", error)
        return False
    _compiled = _load(path)
    return _compiled is not None


def _load(path: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:  # of another machine, in a home that both share
        logging.getLogger("cifarzoo").debug("%s cannot be loaded: %s", path, error)
        return None


@functools.cache
def _compiler() -> str | None:
    if sys.platform != "linux":  # the flags are those of gcc and clang with OpenMP
        return None
    named = os.environ.get("CC")
    return shutil.which(named) if named else shutil.which("cc") or shutil.which("gcc")


@functools.cache
def _place() -> Path | None:
    """Where the compiled file lies: one for each source, processor and version of torch."""
    if sys.platform != "linux":
        return None
    sources = [path.read_bytes() for path in _SOURCES]
    rest = (" ".join(_FLAGS), _processor(), str(torch.__version__))
    made_of = hashlib.sha256(b"\n".join((*sources, *(text.encode() for text in rest))))
    return cache_directory() / "kernels" / f"{made_of.hexdigest()[:20]}.so"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    lines = [line for line in text.splitlines() if line.startswith(("model name", "flags", "Feat"))]
    return "\n".join(sorted(set(lines)))
