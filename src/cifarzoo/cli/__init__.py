"""The command ``cifarzoo``."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence

import typer

from cifarzoo.cli.application import app
from cifarzoo.names import printable

from cifarzoo.cli.zoo import data, info, models, recipes, summary  # isort: skip  (the order of the help)
from cifarzoo.cli.train import train  # isort: skip
from cifarzoo.cli.evaluate import calibrate, evaluate, report  # isort: skip
from cifarzoo.cli.compare import compare  # isort: skip
from cifarzoo.cli.predict import predict  # isort: skip
from cifarzoo.cli.export import export  # isort: skip
from cifarzoo.cli.verify import verify  # isort: skip
from cifarzoo.cli.demo import demo  # isort: skip

__all__ = [
    "app",
    "calibrate",
    "compare",
    "data",
    "demo",
    "evaluate",
    "export",
    "info",
    "main",
    "models",
    "predict",
    "recipes",
    "report",
    "summary",
    "train",
    "verify",
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Every error becomes a message; with --debug it is a traceback.

    Args:
        arguments: In place of those that the program was started with.
    """
    given = sys.argv[1:] if arguments is None else [*arguments]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            # also as python -m cifarzoo: the shell completes this name; patterns of files, which
            # shells of Windows leave alone, are resolved only where no arguments are passed
            app(None if arguments is None else given, prog_name="cifarzoo")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk is found here, or when Python ends
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "--debug" in given:
            raise
        _explain(error)
        sys.exit(1)


def _explain(error: Exception) -> None:
    """Say what happened, as far as the system lets us."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror.lower()}"
    else:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")
    with contextlib.suppress(OSError):
        typer.secho(
            printable(f"error: {reason}\n`cifarzoo --debug ...` shows where it happened"),
            err=True,
            fg="red",
        )
    with contextlib.suppress(OSError, ValueError):  # or Python tries to write the rest again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
