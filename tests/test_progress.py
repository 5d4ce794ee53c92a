from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from cifarzoo.progress import byte_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(file: io.StringIO) -> Console:
    return Console(file=file, force_terminal=True, width=100, color_system=None)


def test_bar_shows_title_size_and_total() -> None:
    drawn = io.StringIO()
    with byte_bar("cifar-10-python.tar.gz", console(drawn)) as advance:
        advance(500_000, 2_000_000)
        advance(2_000_000, 2_000_000)
    assert "cifar-10-python.tar.gz" in drawn.getvalue()
    assert "2.0/2.0 MB" in drawn.getvalue()


def test_bar_does_without_a_total() -> None:
    drawn = io.StringIO()
    with byte_bar("file", console(drawn)) as advance:
        advance(3_000_000, None)
    assert "3.0/? MB" in drawn.getvalue()


def test_bar_is_drawn_on_standard_error_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with byte_bar("file") as advance:
        advance(2_000_000, 2_000_000)
    assert "file" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_nothing_is_drawn_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with byte_bar("file") as advance:
        advance(1, 2)
    assert capsys.readouterr() == ("", "")


def test_bar_is_taken_down_when_the_block_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    drawn = io.StringIO()

    def fail() -> None:
        with byte_bar("file", console(drawn)) as advance:
            advance(1, 2)
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail()
    assert drawn.getvalue().endswith("\x1b[?25h")  # the cursor is back
