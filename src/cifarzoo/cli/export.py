"""The command that writes networks for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import cifarzoo
from cifarzoo.cli.application import Weights, app, open_weights
from cifarzoo.errors import ArgumentError
from cifarzoo.files.writing import make_directory

__all__ = ["export"]


@app.command(
    epilog="Examples: `cifarzoo export resnet20`, `cifarzoo export runs/mine --output mine.onnx`"
)
def export(
    weights: Weights,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The .onnx file. [default: MODEL.onnx]"),
    ] = None,
    image_size: Annotated[int, typer.Option(help="Height and width of the images.")] = 32,
) -> None:
    """Write a network as an ONNX file, which takes images as they are: uint8, in 0..255."""
    if output is not None and output.suffix.lower() != ".onnx":
        raise ArgumentError(f"--output is an .onnx file; got {output}")
    if image_size < 1:
        raise ArgumentError(f"--image-size must be at least 1; got {image_size}")
    network = open_weights(weights).network
    card = cifarzoo.get_card(network)
    path = output or Path(f"{card.name.replace(':', '-')}.onnx")
    make_directory(path.parent)
    cifarzoo.export_onnx(network, path, image_size=image_size)
    typer.echo(f"written: {path}, {path.stat().st_size / 1e6:.3g} MB")
