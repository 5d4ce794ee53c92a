"""The command that writes networks for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import cifarzoo
from cifarzoo.cli.application import A_PATH, Weights, app, made_for, open_weights
from cifarzoo.errors import ArgumentError, OutputError
from cifarzoo.files.paths import file_name
from cifarzoo.files.writing import make_directory

__all__ = ["export"]


@app.command(
    epilog="Examples: `cifarzoo export resnet20`, `cifarzoo export runs/mine --output mine.onnx`"
)
def export(
    weights: Weights,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .onnx, or .pt2 for a program of torch.export. "
            "[default: MODEL.onnx, or MODEL-TAG.onnx]",
            **A_PATH,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Height and width of the images in pixels. [default: 32, or what the model takes]",
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(help="Version of the ONNX operators; older runtimes need a lower one."),
    ] = None,
) -> None:
    """Write a network to a file for other programs.

    The network in the file takes images as bytes in 0..255: normalization is part of it.
    """
    if output is not None and output.suffix.lower() not in (".onnx", ".pt2"):
        raise ArgumentError(f"--output must be an .onnx or a .pt2 file; got {output}")
    is_program = output is not None and output.suffix.lower() == ".pt2"
    if is_program and opset is not None:
        raise ArgumentError("--opset applies to .onnx files only; leave it out")
    if image_size is not None and image_size < 1:
        raise ArgumentError(f"--image-size must be at least 1; got {image_size}")
    opened = open_weights(weights)
    network, card = opened.network, cifarzoo.get_card(opened.network)
    named = f"{card.name}-{opened.tag}" if opened.tag not in ("", "default") else card.name
    path = output or Path(f"{file_name(named)}.onnx")
    if output is None and path.exists():
        raise OutputError(f"{path} is there: to replace it, or name another file, pass --output")
    make_directory(path.parent)
    if image_size is None:
        image_size = made_for(card.name)
    if is_program:
        path = cifarzoo.export_program(network, path, image_size=image_size)
    else:
        path = cifarzoo.export_onnx(network, path, image_size=image_size, opset=opset)
    typer.echo(f"written: {path}, {path.stat().st_size / 1e6:.3g} MB")
