"""The command that shows a network in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from cifarzoo.cli.application import app

__all__ = ["demo"]


@app.command(epilog="Examples: `cifarzoo demo`, `cifarzoo demo runs/mine --port 8000`")
def demo(
    model: Annotated[
        str | None,
        typer.Argument(help="Weights file, run folder, or pretrained model, to begin with."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port. [default: a free one from 7860]")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Show a page: drop or photograph an image, see what a network makes of it, and why."""
    from cifarzoo.demo import launch_demo

    launch_demo(model, host=host, port=port, browser=browser)
