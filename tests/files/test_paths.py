"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cifarzoo.errors import ArgumentError
from cifarzoo.files.paths import user_path


def test_what_is_there_and_what_is_not_can_both_be_asked_about(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("", "file", "missing", "missing/file", "file/below"):
        assert user_path(tmp_path / name) == tmp_path / name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * 300, "file name too long"),
        ("x\0y", "embedded null"),
        ("~nosuchuser/x", "could not determine home directory"),
    ],
)
def test_what_no_file_can_be_called_is_refused(text: str, reason: str) -> None:
    with pytest.raises(
        ArgumentError, match=f"cannot use the path .*: {reason}.*; name another one"
    ):
        user_path(text, expand=True)


def test_a_tilde_stands_for_home_only_where_it_is_asked_for() -> None:
    assert user_path("~", expand=True) == Path.home()
    assert user_path("~") == Path("~")


def test_a_folder_that_may_not_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may open every folder
    with pytest.raises(ArgumentError, match="permission denied"):
        user_path(tmp_path)
