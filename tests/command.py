"""The command line, in the process of a test."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from cifarzoo.cli import app

__all__ = ["Result", "run"]


def run(*arguments: object, code: int = 0, stdin: bytes | None = None) -> Result:
    """What a command writes; it must end with a status."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result
