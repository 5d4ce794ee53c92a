from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console

from cifarzoo.files.progress import byte_bar, count_bar


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


def test_a_bar_counts_what_is_done() -> None:
    drawn = io.StringIO()
    with count_bar("pictures", 3, console(drawn)) as advance:
        advance(1)
        advance(2)
    assert "pictures" in drawn.getvalue()
    assert "3/3" in drawn.getvalue()
    assert re.search(r"[\d,]+/s .*0:00:00", drawn.getvalue())


def test_a_count_leaves_standard_output_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with count_bar("pictures", 1) as advance:
        print("an answer")  # noqa: T201  (that is the point)
        advance(1)
    assert capsys.readouterr().out == "an answer\n"


def test_nothing_is_counted_without_a_terminal_or_things(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with count_bar("pictures", 3) as advance:
        advance(1)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with count_bar("pictures", 0) as advance:
        advance(1)
    assert sys.stderr.getvalue() == capsys.readouterr().err == ""
