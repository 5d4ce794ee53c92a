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
        typer.Argument(help="Weights file, run folder or pretrained model to show first."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of the page. [default: the first free one from 7860 on]"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines connect.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Show a network in the browser.

    The page takes an image or a photo. It shows what the network recognizes in it, and where.
    """
    from cifarzoo.demo import launch_demo

    launch_demo(model, host=host, port=port, browser=browser)
