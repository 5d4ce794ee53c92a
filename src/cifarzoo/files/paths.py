"""Paths as users write them: with a ~, and with names that no file can have."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cifarzoo.errors import ArgumentError

__all__ = ["user_path"]

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR)


def user_path(text: str | os.PathLike[str], *, expand: bool = False) -> Path:
    """``text`` as a path that can be asked about: whether it exists, what it is.

    Args:
        text: What somebody wrote.
        expand: Put the user's home in place of ~, as a shell does.

    Raises:
        ArgumentError: No file can have this name, the user it names does not exist, or the
            folder that it is or lies in may not be opened.
    """
    path = Path(text)
    try:
        if expand:
            path = path.expanduser()
        path.stat()
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return path
        reason = (error.strerror or str(error)).lower()
    except (RuntimeError, ValueError) as error:  # a user without a home, a name with a zero byte
        reason = str(error).rstrip(".").lower()
    else:
        if not path.is_dir() or os.access(path, os.X_OK):
            return path
        reason = "permission denied"
    shown = str(path) if len(str(path)) <= 100 else f"{str(path)[:100]}..."
    raise ArgumentError(f"cannot use the path {shown}: {reason}; name another one")
