"""The layers in C, compiled for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cifarzoo.compute.cpu import native


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The compiled layers, in a cache of their own."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "cache_directory", lambda: cache)
        forget_kernels(patch)
        if not native.build():
            pytest.skip("there is no C compiler")
        yield
        forget_kernels(patch)


def forget_kernels(patch: pytest.MonkeyPatch) -> None:
    """Let the library be sought anew."""
    patch.setattr(native, "_compiled", None)
    patch.setattr(native, "_is_sought", False)
    native._place.cache_clear()
    native._compiler.cache_clear()
