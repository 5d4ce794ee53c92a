"""Paths as users write them."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run
from PIL import Image

import cifarzoo
from cifarzoo import CSVLogger, EpochRecord, History, Recipe, Trainer
from cifarzoo.errors import ArgumentError
from cifarzoo.files.paths import command_line, file_name, home_path, user_path
from cifarzoo.files.writing import make_directory, write_bytes


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
        user_path(text)


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(ArgumentError, match="a path is empty; name a file or folder"):
        user_path("")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another home than the working folder."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_tilde_stands_for_home(home: Path) -> None:
    assert user_path("~") == home_path("~") == home
    assert user_path("~/a/b") == home / "a" / "b"


def test_a_file_whose_name_begins_with_a_tilde_is_found(home: Path) -> None:
    Path("~$photo.png").write_text("")
    assert user_path("~$photo.png").exists()


WRITERS: dict[str, Callable[[str], object]] = {
    "bytes": lambda path: write_bytes(path, b"a"),
    "folder": lambda path: make_directory(f"{path}/folder"),
    "recipe": lambda path: Recipe.load(Recipe().save(f"{path}.toml")),
    "weights": lambda path: cifarzoo.save_weights(cifarzoo.create_model("simple"), path),
    "history": lambda path: History.load(History(()).save(path)),
    "log": lambda path: CSVLogger(path).on_epoch(
        EpochRecord(1, 1.0, 0.5, None, None, 0.1, 1.0, 1.0)
    ),
    "run": lambda path: Trainer(cifarzoo.create_model("simple"), Recipe(), output=path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_written_below_a_tilde_lies_at_home(kind: str, home: Path) -> None:
    (home / "results").mkdir()
    WRITERS[kind]("~/results/mine")
    assert [each.name.partition(".")[0] for each in (home / "results").iterdir()] == ["mine"]
    assert not [*Path().iterdir()]


@pytest.mark.parametrize("kind", ["file", "folder", "command"])
def test_what_lies_at_home_is_read(kind: str, home: Path) -> None:
    picture = cifarzoo.load_sample("test").images[0].permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(home / "photo.png")
    if kind == "command":
        run("predict", "simple", "~/photo.png", "--output=~/a.json")
        assert (home / "a.json").exists()
        return
    found = cifarzoo.predict(
        cifarzoo.create_model("simple"), "~/photo.png" if kind == "file" else "~"
    )
    assert found


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ("linux", "cifarzoo evaluate 'my runs/a' --top 1"),
        ("win32", 'cifarzoo evaluate "my runs/a" --top 1'),
    ],
)
def test_a_command_can_be_copied(
    system: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert command_line("cifarzoo", "evaluate", "my runs/a", "--top", "1") == command


def test_a_folder_that_may_not_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may open every folder
    with pytest.raises(ArgumentError, match="permission denied"):
        user_path(tmp_path)


def test_what_windows_takes_for_no_name_is_a_path_where_nothing_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address or a pattern, which is then looked for elsewhere."""

    def refuse(path: Path, **_: Any) -> Any:
        error = OSError(errno.EINVAL, "the filename, directory name, or volume label is incorrect")
        error.winerror = 123  # type: ignore[attr-defined]  # as there
        raise error

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    assert user_path("https://x/y?z") == Path("https://x/y?z")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("simple", "simple"),
        ("timm:resnet18.a1", "timm-resnet18.a1"),
        ("a/b\\c", "a-b-c"),
        ("/", "unnamed"),
    ],
)
def test_a_name_becomes_one_that_a_file_may_have(text: str, name: str) -> None:
    assert file_name(text) == name
