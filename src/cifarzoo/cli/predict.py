"""The command that says what is on pictures."""

from __future__ import annotations

import dataclasses
import glob
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarzoo.cli.application import (
    AsJson,
    Device,
    Temperature,
    Weights,
    app,
    open_weights,
    print_error,
    print_json,
)
from cifarzoo.errors import ArgumentError, CifarZooError, InputError
from cifarzoo.files.paths import user_path
from cifarzoo.files.progress import count_bar

if TYPE_CHECKING:
    from cifarzoo.data.pictures import Prepared

__all__ = ["predict"]

_AT_ONCE = 100  # pictures between two lots of answers
_LARGEST = 1 << 28  # bytes from standard input, which may be endless


@app.command(
    epilog="Examples: `cifarzoo predict runs/mine frog.png ship.jpg`, "
    "`cifarzoo predict resnet20 photos/ --json`, `curl URL | cifarzoo predict resnet20 -`"
)
def predict(
    context: typer.Context,
    weights: Weights,
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, folders with all in them, or - for standard input."),
    ],
    temperature: Temperature = 1.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what is on pictures. One that cannot be read is reported, and the exit code is 1."""
    from cifarzoo.evaluation.inference import check_temperature
    from cifarzoo.evaluation.predict import classify

    check_temperature(temperature)
    network = open_weights(weights).network
    items = [item for name in images for item in _find_files(name)]
    lines: list[dict[str, Any]] = []
    failed = 0
    # the answers themselves show how far it is, when they go to the terminal
    is_quiet = as_json or not sys.stdout.isatty()
    with count_bar("pictures", len(items) if is_quiet else 0) as advance:
        for start in range(0, len(items), _AT_ONCE):
            part = items[start : start + _AT_ONCE]
            found = [_prepare(item, advance) for item in part]
            ready = [image for image in found if not isinstance(image, CifarZooError)]
            answers = iter(
                classify(network, ready, temperature=temperature, device=device) if ready else ()
            )
            for (name, _), image in zip(part, found, strict=True):
                if isinstance(image, CifarZooError):
                    failed += 1
                    print_error(image, context.command)
                    lines.append({"file": name, "error": str(image)})
                    continue
                answer = dataclasses.replace(next(answers), file=name)
                lines.append({"file": name, **dataclasses.asdict(answer)})
                if not as_json:
                    typer.echo(str(answer))
    if as_json:
        print_json(lines)
    if failed:
        typer.secho(f"{failed} of {len(items)} could not be read", err=True, fg="red")
        raise typer.Exit(1)


def _find_files(name: str) -> list[tuple[str, CifarZooError | None]]:
    """The files that an argument means: itself, those of a folder, or those that fit a pattern.

    Each with the reason why there is none, or None.
    """
    from cifarzoo.data.pictures import find_images

    try:
        path = user_path(name)
    except ArgumentError as error:
        return [(name, error)]
    files, reason = [name], None
    if name == "-":
        pass
    elif name and path.is_dir():
        found, others = find_images(path)
        files = [str(each) for each in found]
        reason = f"there are no images in the folder {name}; other files in it: {others}"
        if found and others:
            typer.echo(f"{name}: files passed over, for they are no images: {others}", err=True)
    elif name and not path.exists() and glob.has_magic(name):  # which the shell has not expanded
        files = sorted(each for each in glob.glob(name, recursive=True) if Path(each).is_file())
        reason = f"no file fits {name}"
    return [(each, None) for each in files] or [(name, InputError(reason))]


def _prepare(
    item: tuple[str, CifarZooError | None], advance: Callable[[int], None]
) -> Prepared | CifarZooError:
    """The image of a file, ready for a network, or what is wrong with it."""
    from cifarzoo.data.pictures import prepare

    name, error = item
    advance(1)
    if error is not None:
        return error
    try:
        return prepare(_standard_input() if name == "-" else name)
    except CifarZooError as found:
        return found


def _standard_input() -> io.BytesIO:
    """What comes in, with a name for messages; a pipe has no beginning to return to."""
    if sys.stdin is None:
        raise InputError("cannot read an image from standard input: it is closed")
    content = typer.get_binary_stream("stdin").read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InputError(
            f"cannot read an image from standard input: it holds more than {_LARGEST:,} bytes"
        )
    file = io.BytesIO(content)
    file.name = "standard input"
    return file
