"""Locks between processes, which a process loses when it dies, however it dies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cifarzoo.files.writing import cannot_write, make_directory

__all__ = ["Timeout", "held"]


@contextlib.contextmanager
def held(path: str | os.PathLike[str], *, wait: bool = True) -> Iterator[None]:
    """Hold the lock ``path``, a file that is there only while somebody holds it.

    Args:
        path: The file; its folder is made where it is missing.
        wait: Until another process lets it go.

    Raises:
        Timeout: Another process holds it, and ``wait`` is off.
        OutputError: The folder cannot be written.
    """
    path = Path(path)
    make_directory(path.parent)
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # before it is free, or the file of the next one would go
        lock.release()
