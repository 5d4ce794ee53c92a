"""The command that says what is on pictures."""

from __future__ import annotations

import csv
import dataclasses
import glob
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarzoo.cli.application import (
    A_PATH,
    AsJson,
    Device,
    Temperature,
    Weights,
    app,
    open_weights,
    print_error,
)
from cifarzoo.errors import ArgumentError, CifarZooError, InputError
from cifarzoo.files.paths import user_path
from cifarzoo.files.progress import count_bar
from cifarzoo.files.writing import make_directory, write_bytes
from cifarzoo.names import one_line

if TYPE_CHECKING:
    from torch import nn

    from cifarzoo import Prediction
    from cifarzoo.data.pictures import Prepared

__all__ = ["predict"]

_AT_ONCE = 100  # pictures between two lots of answers
_LARGEST = 1 << 28  # bytes from standard input, which may be endless


@app.command(
    epilog="Examples: `cifarzoo predict runs/mine frog.png ship.jpg`, "
    "`cifarzoo predict resnet20 photos/ --output answers.csv`, "
    "`cifarzoo predict resnet20 photos/ --json --top 3`, `curl URL | cifarzoo predict resnet20 -`"
)
def predict(
    context: typer.Context,
    weights: Weights,
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, folders of images, or - for standard input."),
    ],
    top: Annotated[
        int, typer.Option(help="Number of classes to show, the most probable first.")
    ] = 5,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the answers to this .csv, .json or .txt file.", **A_PATH
        ),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, with one line for each image.")
    ] = False,
    temperature: Temperature = 1.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what images show.

    An image that cannot be read is reported, and the exit code is then 1.
    """
    from cifarzoo.evaluation.inference import check_temperature
    from cifarzoo.evaluation.predict import check_top

    check_temperature(temperature)
    check_top(top)
    kind = _choose_kind(output, as_csv=as_csv, as_json=as_json)
    network = open_weights(weights).network
    items = [item for name in images for item in _find_files(name)]
    is_spoken = kind == "txt" and output is None  # as soon as it is known
    # the answers themselves show how far it is, when they go to the terminal
    is_quiet = not is_spoken or not sys.stdout.isatty()
    lines: list[dict[str, Any]] = []
    try:
        with count_bar("pictures", len(items) if is_quiet else 0) as advance:
            for name, found in _answer(
                network, items, advance, temperature=temperature, top=top, device=device
            ):
                if isinstance(found, CifarZooError):
                    print_error(found, context.command)
                    lines.append({"file": name, "error": str(found)})
                    continue
                lines.append({"file": name, **dataclasses.asdict(found)})
                if is_spoken:
                    typer.echo(str(found))
    except KeyboardInterrupt:
        if output is None or not lines:
            raise
        # beside it, for there may be whole answers in its place
        kept = _write(output.with_stem(f"{output.stem}-stopped"), kind, lines)
        raise KeyboardInterrupt(
            f"stopped after {len(lines)} of {len(items)} pictures; their answers are in {kept}"
        ) from None
    if output is not None:
        typer.echo(f"written: {_write(output, kind, lines)}", err=True)
    elif not is_spoken:
        typer.echo(_WRITERS[kind](lines), nl=False)
    if failed := sum("error" in line for line in lines):
        typer.secho(f"{failed} of {len(items)} could not be read", err=True, fg="red")
        raise typer.Exit(1)


def _write(path: Path, kind: str, lines: list[dict[str, Any]]) -> Path:
    return write_bytes(path, _WRITERS[kind](lines).encode(errors="backslashreplace"))


def _answer(
    network: nn.Module,
    items: list[tuple[str, CifarZooError | None]],
    advance: Callable[[int], None],
    **options: Any,
) -> Iterator[tuple[str, Prediction | CifarZooError]]:
    """The name of each picture, with what is on it or what is wrong with it."""
    from cifarzoo.evaluation.predict import classify

    for start in range(0, len(items), _AT_ONCE):
        part = items[start : start + _AT_ONCE]
        found = [_prepare(item, advance) for item in part]
        ready = [image for image in found if not isinstance(image, CifarZooError)]
        answers = iter(classify(network, ready, **options) if ready else ())
        for (name, _), image in zip(part, found, strict=True):
            if isinstance(image, CifarZooError):
                yield name, image
            else:
                yield name, dataclasses.replace(next(answers), file=name)


def _choose_kind(output: Path | None, *, as_csv: bool, as_json: bool) -> str:
    """How the answers are written: "csv", "json" or "txt"."""
    asked = [kind for kind, is_asked in (("csv", as_csv), ("json", as_json)) if is_asked]
    if len(asked) > 1:
        raise ArgumentError("--csv and --json exclude each other; give one of them")
    if output is None:
        return asked[0] if asked else "txt"
    kind = output.suffix.lower().removeprefix(".")
    if kind not in _WRITERS:
        raise ArgumentError(f"--output must be a .csv, .json or .txt file; got {output}")
    if asked and asked[0] != kind:
        raise ArgumentError(
            f"--{asked[0]} asks for {asked[0].upper()}, but --output is a .{kind} file: {output}"
        )
    make_directory(output.parent)
    return kind


def _as_csv(lines: list[dict[str, Any]]) -> str:
    """A header and a row for each picture: the most probable class first, then the others."""
    count = max((len(line["top"]) for line in lines if "top" in line), default=1)
    others = [f"{name}_{n}" for n in range(2, count + 1) for name in ("label", "probability")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", "probability", *others, "note", "error"])
    for line in lines:
        top = [cell for pair in line.get("top", ()) for cell in pair]
        top += [""] * (2 * count - len(top))
        writer.writerow([line["file"], *top, line.get("note", ""), line.get("error", "")])
    return text.getvalue()


def _as_json(lines: list[dict[str, Any]]) -> str:
    return json.dumps(lines, indent=1) + "\n"


def _as_text(lines: list[dict[str, Any]]) -> str:
    from cifarzoo import Prediction

    told = (
        one_line(f"{line['file']}: {line['error']}") if "error" in line else Prediction(**line)
        for line in lines
    )
    return "".join(f"{each}\n" for each in told)


_WRITERS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "csv": _as_csv,
    "json": _as_json,
    "txt": _as_text,
}


def _find_files(name: str) -> list[tuple[str, CifarZooError | None]]:
    """The files that an argument means: itself, those of a folder, or those that fit a pattern.

    Each with the reason why there is none, or None.
    """
    from cifarzoo.data.pictures import find_images

    if name in ("", "-"):
        return [(name, None)]
    try:
        path = user_path(name)
    except ArgumentError as error:
        return [(name, error)]
    files, reason = [name], None
    if path.is_dir():
        found, others = find_images(path)
        files = [str(each) for each in found]
        reason = f"the folder {name} holds no images; other files in it: {others}"
        if found and others:
            typer.echo(f"{name}: other files than images were left out: {others}", err=True)
    elif not path.exists() and glob.has_magic(name):  # which the shell has not expanded
        files = sorted(each for each in glob.glob(name, recursive=True) if Path(each).is_file())
        reason = f"no file matches {name}"
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
