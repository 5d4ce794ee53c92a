"""Paths as users write them: with a ~, and with names that no file can have."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from cifarzoo.errors import ArgumentError
from cifarzoo.plain import shorten

__all__ = ["command_line", "file_name", "home_path", "reason_of", "user_path"]

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR)
_NO_NAME_OF_A_FILE = 123  # of Windows: an address, say, or the name of a model


def home_path(text: Any) -> Path:
    """``text`` as a path, with the user's home in place of ~, as a shell has it.

    Raises:
        ArgumentError: It is neither a text nor a path, or the user it names does not exist, and
            there is no such file.

    Example:
        >>> home_path(None)
        Traceback (most recent call last):
            ...
        cifarzoo.errors.ArgumentError: a path must be a text or a Path; got None
    """
    try:
        path = Path(text)
    except TypeError:
        raise ArgumentError(f"a path must be a text or a Path; got {shorten(text)}") from None
    try:
        return path.expanduser()
    except RuntimeError as error:
        if os.path.lexists(path):  # programs for offices call what they have open ~$text.docx
            return path
        raise _unusable(path, error) from error


def user_path(text: str | os.PathLike[str]) -> Path:
    """``text`` as a path that can be asked about: whether it exists, what it is.

    Args:
        text: What somebody wrote; ~ is the user's home.

    Raises:
        ArgumentError: It is empty, no file can have this name, the user it names does not exist,
            or the folder that it is or lies in may not be opened.
    """
    if text == "":  # as of a variable of the shell that is not set; Path would make it this folder
        raise ArgumentError("a path is empty; name a file or folder")
    path = home_path(text)
    try:
        path.stat()
    except OSError as error:
        if error.errno in _NOTHING_THERE or getattr(error, "winerror", 0) == _NO_NAME_OF_A_FILE:
            return path
        raise _unusable(path, error) from error
    except ValueError as error:  # a name with a zero byte
        raise _unusable(path, error) from error
    if path.is_dir() and not os.access(path, os.X_OK):
        raise _unusable(path, PermissionError("permission denied"))
    return path


def file_name(text: str) -> str:
    """``text`` without the characters that the name of a file has not on every system.

    Example:
        >>> file_name("timm:resnet18"), file_name("mine/wide (2)")
        ('timm-resnet18', 'mine-wide-2')
    """
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "unnamed"


def command_line(*words: str | os.PathLike[str]) -> str:
    """A command that can be copied: its words as the shell of this system takes them."""
    join = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    return join([str(word) for word in words])


def reason_of(error: Exception) -> str:
    """What the system, or Python, says is wrong, as a part of a sentence."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".").lower()


def _unusable(path: Path, error: Exception) -> ArgumentError:
    shown = str(path) if len(str(path)) <= 100 else f"{str(path)[:100]}..."
    reason = reason_of(error)
    return ArgumentError(f"cannot use the path {shown}: {reason}; name another one")
