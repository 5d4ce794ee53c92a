"""The command line explains what went wrong; only --debug shows a traceback."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cifarzoo
from cifarzoo import cli
from cifarzoo.cli import main

LONG = "x" * 300


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(*arguments: str, code: int = 1) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", LONG), "file name too long"),
        (("evaluate", f"{LONG}.safetensors"), "file name too long"),
        (("report", LONG), "file name too long"),
        (("train", "--resume", LONG), "file name too long"),
        (("train", "simple", "--data", "sample", "--output", LONG), "file name too long"),
        (("train", "simple", "--recipe", f"{LONG}.toml"), "cannot read recipe"),
        (("evaluate", "simple", "--data", f"folder:{LONG}"), "file name too long"),
        (("predict", "simple", LONG), "file name too long"),
        (("evaluate", "", "--data", "sample"), "a path is empty; name a file or folder"),
        (("report", "", "--data", "sample"), "a path is empty; name a file or folder"),
        (("report", "simple", "--output", ""), "a path is empty; name a file or folder"),
        (("train", "simple", "--output", ""), "a path is empty; name a file or folder"),
        (("train", "--resume", ""), "a path is empty; name a file or folder"),
        (("predict", "simple", "x.png", "--output", ""), "a path is empty; name a file or folder"),
        (("export", "simple", "--output", ""), "a path is empty; name a file or folder"),
        (("data", "--root", ""), "a path is empty; name a file or folder"),
        (("evaluate", "simple", "--data", "folder:"), "a path is empty; name a file or folder"),
        (("train", "--resume", "failing.py"), "failing.py is no checkpoint; --resume takes"),
        (("data", "--root", "~nosuchuser/x"), "could not determine home directory"),
        (("evaluate", "simple", "--data", "folder:~nosuchuser"), "could not determine home"),
        (("evaluate", "simple", "--data", "sample", "--device", "meta"), "'meta' cannot be used"),
        (("summary", "simple", "--num-classes", "9" * 22), "at most 100,000"),
        (("--import", ".x", "models"), "module '.x' cannot be imported"),
        (("--import", "", "models"), "module '' cannot be imported"),
        (("--import", "failing", "models"), "module 'failing' cannot be imported: oh"),
    ],
)
def test_what_cannot_be_used_is_explained(
    arguments: tuple[str, ...], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "failing.py").write_text("raise RuntimeError('oh')")
    fails(*arguments)
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert "--debug" not in errors  # it was foreseen


def test_a_folder_in_the_place_of_a_data_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cifar-10-batches-py" / "data_batch_1").mkdir(parents=True)
    fails("data", "--root", str(folder), "--no-download")
    assert "data_batch_1 cannot be read (is a directory); delete" in capsys.readouterr().err


def test_a_full_disk_below_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        fails("models", "--json")
    errors = capsys.readouterr().err
    assert errors.startswith("error: no space left on device\n")
    assert "Traceback" not in errors


def test_what_nobody_foresaw_is_a_message_and_with_debug_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(pattern: str, pretrained: bool | None = None) -> list[str]:
        raise ZeroDivisionError("cannot\nbe")

    monkeypatch.setattr(cifarzoo, "list_models", broken)
    fails("models")
    errors = capsys.readouterr().err
    assert errors.startswith("error: ZeroDivisionError: cannot\n")
    assert "`cifarzoo --debug ...` shows where" in errors
    with pytest.raises(ZeroDivisionError):
        main(["--debug", "models"])


def test_debug_shows_where_an_error_of_the_library_comes_from() -> None:
    with pytest.raises(cifarzoo.errors.UnknownNameError):
        main(["--debug", "info", "nosuch"])


def test_wrong_usage_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    fails("models", "--nosuch", code=2)
    assert "No such option" in capsys.readouterr().err


def test_an_option_that_is_a_field_of_the_recipe_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fails("train", "simple", "--batch-size", "64", code=2)
    assert "--set batch_size=VALUE" in " ".join(capsys.readouterr().err.split())
    fails("info", "simple", "--batch-size", "64", code=2)
    assert "--set" not in capsys.readouterr().err


class Endless(io.RawIOBase):
    """As /dev/zero."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return len(buffer)


@pytest.mark.parametrize("stdin", ["closed", "endless"])
def test_standard_input_that_holds_no_image(
    stdin: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.TextIOWrapper(io.BufferedReader(Endless())) if stdin == "endless" else None
    monkeypatch.setattr(sys, "stdin", stream)
    fails("predict", "simple", "-", "--json")
    (line,) = json.loads(capsys.readouterr().out)
    reason = {"closed": "it is closed", "endless": "it holds more than 268,435,456 bytes"}[stdin]
    assert line["error"] == f"cannot read an image from standard input: {reason}"


def test_names_from_files_do_nothing_to_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a\x1b[2J\u202eb.png").write_bytes(b"no picture")
    fails("predict", "simple", "a\x1b[2J\u202eb.png")
    errors = capsys.readouterr().err
    assert "\x1b[2J" not in errors
    assert "\u202e" not in errors
    assert r"a\x1b[2J\u202eb.png" in errors


def test_names_that_the_terminal_cannot_show_are_escaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(shown, encoding="latin-1", errors="strict"))
    fails("info", "Жук")
    sys.stderr.flush()
    assert rb"unknown model '\u0416\u0443\u043a'" in shown.getvalue()


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_the_run_and_is_the_exit_status(
    number: signal.Signals, code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = folder / "run" / "checkpoint.pt"

    def press() -> None:
        while not checkpoint.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=press)
    thread.start()
    changes = ("--set", "epochs=1000", "--set", "batch_size=500", "--output", "run")
    fails("train", "simple", "--data", "sample", *changes, code=code)
    thread.join()
    assert "continue with: cifarzoo train --resume run" in capsys.readouterr().err
    assert sorted(p.name for p in (folder / "run").iterdir()) == [
        "checkpoint.pt",
        "history.csv",
        "recipe.toml",
        "run.json",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("hangup")
def test_a_terminal_that_closes_lets_the_run_save_itself(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "cifarzoo", "train", "simple", "--data", "sample"]
    command += ["--set", "epochs=1000", "--set", "batch_size=200", "--output", str(tmp_path)]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, preexec_fn=take_terminal, **streams) as process:
        os.close(theirs)
        deadline = time.monotonic() + 120
        while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.05)[0]:
                os.read(ours, 4096)
        os.close(ours)
        assert process.wait(60) == 129
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint.pt", "history.csv", "recipe.toml", "run.json"]


def test_patterns_are_left_to_typer_where_the_shell_leaves_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows it resolves them, if it takes the arguments from the system itself."""
    seen: list[Any] = []
    monkeypatch.setattr(cli, "app", lambda arguments, prog_name: seen.append(arguments))
    cli.main()
    cli.main(["predict", "*.png"])
    assert seen == [None, ["predict", "*.png"]]
