"""Writing files so that nothing is lost: whole or not at all, never half."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from cifarzoo.errors import OutputError

__all__ = [
    "atomic_path",
    "cache_directory",
    "digest",
    "file_digest",
    "make_directory",
    "write_bytes",
    "write_text",
]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it into place when the block succeeds.

    The old file stays untouched when the block fails, the disk is full or the process dies.

    Raises:
        OutputError: The folder cannot be written or there is no space left.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder; name a file in it")
    make_directory(target.parent)
    # the suffix stays last: matplotlib and others choose the format by it
    part = target.with_name(f".{os.getpid()}.part.{target.name}")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write ``content`` atomically and return the path."""
    with atomic_path(path) as part:
        part.write_bytes(content)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write ``text`` as UTF-8, atomically, and return the path."""
    return write_bytes(path, text.encode())


def make_directory(path: str | os.PathLike[str]) -> Path:
    """Create ``path`` with its parents and make sure that it can be written.

    Raises:
        OutputError: It is a file, or its permissions forbid writing.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: permission denied; choose another folder")
    return folder


def cache_directory() -> Path:
    """The user's folder for what can be fetched again."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("cifarzoo", appauthor=False))


def digest(content: bytes, algorithm: str = "sha256") -> str:
    """Hexadecimal checksum of ``content``."""
    # an integrity check against known files, not a security measure
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Hexadecimal checksum of a file's content, read in pieces."""
    running = hashlib.new(algorithm, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            running.update(piece)
    return running.hexdigest()


def _cannot_write(path: Path, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    reason = (error.strerror or str(error)).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free space or choose another place"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        reason, advice = "a file is in its place", "choose a folder"
    else:
        advice = "choose another place"
    return OutputError(f"cannot write {path}: {reason}; {advice}")
