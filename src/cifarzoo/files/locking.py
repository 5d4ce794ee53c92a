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
    ours = _identity(path)
    try:
        yield
    finally:
        # before it is free, or the file of the next one would go; another folder may be there now
        with contextlib.suppress(OSError):
            if _identity(path) == ours:
                path.unlink()
        lock.release()


def _identity(path: Path) -> tuple[int, int] | None:
    """The file that is there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
