"""Writing files so that nothing is lost: whole or not at all, never half."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cifarzoo.errors import OutputError
from cifarzoo.files.paths import home_path, reason_of

if sys.platform != "win32":
    import fcntl

__all__ = [
    "atomic_path",
    "cache_directory",
    "cannot_write",
    "digest",
    "file_digest",
    "make_directory",
    "write_bytes",
    "write_text",
]


_numbers = itertools.count()  # threads of a process write different parts
_OPEN_FILES = re.compile(r"/dev/(std(in|out|err)|fd/)|/proc/")  # they may be files, with lines
_PART = re.compile(r"\.\d+(-\d+)?\.part\..")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it into place when the block succeeds.

    The old file stays untouched when the block fails or writes nothing, the disk is full or the
    process dies. What a process that died has left in the folder is removed. Behind a symbolic
    link, the file that it names is replaced; a new file has the permissions of the old one.

    Args:
        path: The file; ~ is the user's home, as in all that is written here.
        replace: Whether a file that is there already may be replaced.

    Raises:
        OutputError: The folder cannot be written, there is no space left, the path is a device, or
            the file is there and may not be replaced.
    """
    target = home_path(path)
    try:
        is_folder = target.is_dir()
        if target.is_symlink():
            target = Path(os.path.realpath(target))
    except OSError as error:  # the name is too long, or a folder above is closed
        raise cannot_write(target, error) from error
    if is_folder:
        raise OutputError(f"cannot write {target}: it is a folder; name a file in it")
    if _OPEN_FILES.match(str(path)) or (target.exists() and not target.is_file()):
        raise OutputError(
            f"cannot write {path}: it is a device or a pipe, which a file would replace"
        )
    _remove_remains(make_directory(target.parent))
    try:
        part, own = _new_part(target)
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        with own:
            yield part
            # Windows flushes only what may be written, and others write what may be read only
            with part.open("r+b" if sys.platform == "win32" else "rb") as written:
                os.fsync(written.fileno())
                if not os.fstat(written.fileno()).st_size:
                    raise OutputError(f"cannot write {target}: nothing was written")
            if replace:
                with contextlib.suppress(OSError):  # there may be none, or one of another user
                    shutil.copymode(target, part)
                part.replace(target)
            else:
                _move_to_free(part, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes, *, replace: bool = True) -> Path:
    """Write ``content`` atomically and return the path; see `atomic_path`."""
    with atomic_path(path, replace=replace) as part:
        part.write_bytes(content)
    return home_path(path)


def write_text(path: str | os.PathLike[str], text: str, *, replace: bool = True) -> Path:
    """Write ``text`` as UTF-8, atomically, and return the path; see `atomic_path`."""
    return write_bytes(path, text.encode(), replace=replace)


def make_directory(path: str | os.PathLike[str]) -> Path:
    """Create ``path`` with its parents and make sure that it can be written.

    Raises:
        OutputError: It is a file, or its permissions forbid writing.
    """
    folder = home_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
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


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error of the library for one of the system; the caller raises it."""
    if isinstance(error, OutputError):
        return error
    reason = reason_of(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free space or choose another place"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        reason, advice = "a file is in its place", "choose a folder"
    else:
        advice = "choose another place"
    return OutputError(f"cannot write {path}: {reason}; {advice}")


def _new_part(target: Path) -> tuple[Path, Any]:
    """An empty file beside ``target``, and what keeps it ours while it is open."""
    while True:
        # the suffix stays last: matplotlib and others choose the format by it
        part = target.with_name(f".{os.getpid()}-{next(_numbers)}.part.{target.name}")
        try:
            own = part.open("xb")
        except FileExistsError:  # of a dead process that had our number
            continue
        if sys.platform == "win32":  # what is open cannot be moved there
            own.close()
            return part, contextlib.nullcontext()
        # somebody who removes remains may have been faster
        if _is_locked(own) is not False and os.fstat(own.fileno()).st_nlink:
            return part, own
        own.close()


def _remove_remains(folder: Path) -> None:
    """Remove the parts that killed processes have left in ``folder``."""
    if sys.platform == "win32":  # without locks nobody knows whose they are
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if _PART.match(name):
                with contextlib.suppress(OSError), (folder / name).open("rb") as found:
                    if _is_locked(found):  # else its process is at work
                        (folder / name).unlink()


def _is_locked(file: Any) -> bool | None:
    """Lock an open file; False if another process has, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def _move_to_free(part: Path, target: Path) -> None:
    """Give ``part`` the name ``target``, which no file has."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise OutputError(f"cannot write {target}: it is there already") from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise OutputError(f"cannot write {target}: it is there already") from None
        part.replace(target)
