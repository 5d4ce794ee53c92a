"""Paths as users write them: with a ~, and with names that no file can have."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from cifarzoo.errors import ArgumentError
from cifarzoo.plain import shorten

__all__ = ["as_path", "user_path"]

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR)


def as_path(path: Any) -> Path:
    """``path`` as a Path; raises ArgumentError when it is neither a text nor a path.

    Example:
        >>> as_path(None)
        Traceback (most recent call last):
            ...
        cifarzoo.errors.ArgumentError: a path must be a text or a Path; got None
    """
    try:
        return Path(path)
    except TypeError:
        raise ArgumentError(f"a path must be a text or a Path; got {shorten(path)}") from None


def user_path(text: str | os.PathLike[str], *, expand: bool = False) -> Path:
    """``text`` as a path that can be asked about: whether it exists, what it is.

    Args:
        text: What somebody wrote.
        expand: Put the user's home in place of ~, as a shell does.

    Raises:
        ArgumentError: It is no path, no file can have this name, the user it names does not exist,
            or the folder that it is or lies in may not be opened.
    """
    path = as_path(text)
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
