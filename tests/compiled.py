"""The layers in C, which tests have only where they ask for them, for machines differ."""

from __future__ import annotations

import pytest

from cifarzoo.compute.cpu import library

__all__ = ["forget_kernels", "without_kernels"]

_FIND, _BUILD = library.find, library.build


def without_kernels(patch: pytest.MonkeyPatch) -> None:
    """As on a machine without a compiler."""
    patch.setattr(library, "find", lambda: None)
    patch.setattr(library, "build", lambda: False)


def forget_kernels(patch: pytest.MonkeyPatch) -> None:
    """As in a new process: the library is sought anew."""
    patch.setattr(library, "find", _FIND)
    patch.setattr(library, "build", _BUILD)
    patch.setattr(library, "_compiled", None)
    patch.setattr(library, "_is_sought", False)
    library._place.cache_clear()
    library._compiler.cache_clear()
