from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from cifarzoo.compute.cpu import pages
from cifarzoo.compute.cpu.pages import keep_freed_memory


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int]]:
    """What the C library is told."""
    told: list[tuple[Any, int]] = []

    class Library:
        def mallopt(self, what: int, value: int) -> int:
            told.append((what, value))
            return 1

        def malloc_trim(self, pad: int) -> int:
            told.append(("trim", pad))
            return 1

    monkeypatch.setattr(pages, "_glibc", Library)
    return told


def test_freed_memory_is_kept_and_given_back_on_the_cpu_only(calls: list[tuple[Any, int]]) -> None:
    with keep_freed_memory(torch.device("cuda")):
        pass
    with keep_freed_memory(torch.device("cpu"), enabled=False):
        pass
    assert calls == []
    with keep_freed_memory(torch.device("cpu")):
        assert (-1, 2**31 - 1) in calls
    assert calls[-1] == ("trim", 0)
    assert calls[-2] == (-1, 64 << 20)


def test_the_last_of_overlapping_blocks_puts_the_setting_back(
    calls: list[tuple[Any, int]],
) -> None:
    first, second = (keep_freed_memory(torch.device("cpu")) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert ("trim", 0) not in calls
    second.__exit__(None, None, None)
    assert calls.count(("trim", 0)) == 1


def test_what_the_user_has_set_is_put_back(
    calls: list[tuple[Any, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "12345")
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    with pytest.raises(ZeroDivisionError), keep_freed_memory(torch.device("cpu")):
        raise ZeroDivisionError
    assert calls[-3:] == [(-4, 7), (-1, 12345), ("trim", 0)]


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pages, "_glibc", lambda: None)
        with keep_freed_memory(torch.device("cpu")):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        pages._glibc.cache_clear()
        assert pages._glibc() is None
    pages._glibc.cache_clear()
