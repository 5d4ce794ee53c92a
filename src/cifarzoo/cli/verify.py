"""The command that proves the pretrained weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cifarzoo
from cifarzoo.cli.application import (
    AsJson,
    Device,
    Download,
    Root,
    app,
    load_set,
    print_json,
)
from cifarzoo.errors import ArgumentError

if TYPE_CHECKING:
    from cifarzoo import Verification

__all__ = ["verify"]


@app.command(
    epilog="Examples: `cifarzoo verify simple`, `cifarzoo verify --all`, "
    "`cifarzoo verify --all --data sample`"
)
def verify(
    models: Annotated[
        list[str] | None, typer.Argument(help="Pretrained models: MODEL or MODEL.TAG.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Verify all pretrained weights that are installed.")
    ] = False,
    data: Annotated[
        str,
        typer.Option(
            help="Image set to test on, unless it is the one of the training; 'sample' is small "
            "and needs no download.",
            show_default=False,
        ),
    ] = "",
    root: Root = None,
    download: Download = True,
    device: Device = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(
            help="Number format of the computation; auto takes the one that the stated accuracy "
            "was measured in."
        ),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Check pretrained weights, and measure their accuracy again.

    Their checksum and what they say about their training are checked too.
    """
    from cifarzoo.verification import tolerance
    from cifarzoo.zoo.about import trained_on
    from cifarzoo.zoo.locate import split_tag

    if bool(models) == every:
        raise ArgumentError("name the models to verify, or give --all; not both")
    chosen: dict[tuple[str, str], str] = {}  # each once, with its image set
    for name, tag in map(split_tag, models or cifarzoo.list_models(pretrained=True)):
        spec = cifarzoo.get_model_info(name)
        if not spec.weights:
            raise ArgumentError(
                f"model {name!r} has no pretrained weights; see `cifarzoo models --pretrained`"
            )
        if tag:
            spec.get_weights(tag)  # refuse before the images are read
        for each in [tag] if tag else spec.weights:
            info = spec.weights[each]
            own = trained_on(info) or "cifar10"
            if every and info.pack and not info.path.is_file():
                left_out = f"is not installed; pip install {info.pack}"
            elif every and data not in ("", own, *(["sample"] if own == "cifar10" else [])):
                left_out = f"was trained on {own}"
            else:
                chosen[name, each] = data or own
                continue
            typer.echo(f"left out: {name} {each} {left_out}", err=True)
    sets = {name: load_set(name, "test", root, download) for name in dict.fromkeys(chosen.values())}
    found = []
    for (name, tag), each in chosen.items():
        images = sets[each]
        typer.echo(f"{name} {tag} on {len(images):,} images of {each}", err=True)
        found.append(
            cifarzoo.verify_weights(name, images, tag=tag, device=device, precision=precision)
        )
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
    else:
        _show(found, max((tolerance(len(images)) for images in sets.values()), default=0.0))
    if not all(each.passed for each in found):
        raise typer.Exit(1)


def _show(found: list[Verification], apart: float) -> None:
    table = Table("model", "weights", box=None, pad_edge=False)
    for title in ("stated", "measured", "seconds"):
        table.add_column(title, justify="right")
    table.add_column("")
    for each in found:
        shares = ["" if x is None else f"{x:.2%}" for x in (each.stated, each.accuracy)]
        verdict = "passed" if each.passed else escape("; ".join(each.problems))
        table.add_row(each.model, each.tag, *shares, f"{each.seconds:.1f}", verdict)
    Console().print(table)
    count = sum(each.passed for each in found)
    typer.echo(
        f"{count} of {len(found)} passed; accuracies may differ by {100 * apart:g} percentage "
        "points at most"
    )
