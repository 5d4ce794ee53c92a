"""The layers in C, which tests have only where they ask for them, for machines differ."""

from __future__ import annotations

import pytest

from cifarzoo.compute.cpu import native

__all__ = ["forget_kernels", "without_kernels"]

_LIBRARY, _BUILD = native.library, native.build


def without_kernels(patch: pytest.MonkeyPatch) -> None:
    """As on a machine without a compiler."""
    patch.setattr(native, "library", lambda: None)
    patch.setattr(native, "build", lambda: False)


def forget_kernels(patch: pytest.MonkeyPatch) -> None:
    """As in a new process: the library is sought anew."""
    patch.setattr(native, "library", _LIBRARY)
    patch.setattr(native, "build", _BUILD)
    patch.setattr(native, "_compiled", None)
    patch.setattr(native, "_is_sought", False)
    native._place.cache_clear()
    native._compiler.cache_clear()
