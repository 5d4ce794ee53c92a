"""The command that proves the pretrained weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

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
from cifarzoo.errors import (
    ArgumentError,
    CifarZooError,
    DataNotFoundError,
    DownloadError,
    UnknownNameError,
)
from cifarzoo.names import split_tag

if TYPE_CHECKING:
    from cifarzoo import ImageSet, Verification

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

    if bool(models) == every:
        raise ArgumentError("name the models to verify, or give --all; not both")
    if data:
        cifarzoo.get_dataset_info(data)  # refuse before anything is read
    chosen = _choose(models or [], data)
    sets = _load_sets(chosen, root, download)
    found = []
    for weights in chosen:
        images = sets.get(weights.data)
        if images is None:
            continue
        typer.echo(f"{weights.model} {weights.tag} on {len(images):,} images", err=True)
        found.append(
            cifarzoo.verify_weights(
                weights.model, images, tag=weights.tag, device=device, precision=precision
            )
        )
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
    else:
        _show(found, max(tolerance(len(images)) for images in sets.values()))
    if not all(each.passed for each in found):
        raise typer.Exit(1)


class _Chosen(NamedTuple):
    """Weights to verify, on the test images of a set; and whether their tag was named."""

    model: str
    tag: str
    data: str
    is_named: bool


def _choose(models: list[str], data: str) -> list[_Chosen]:
    """The weights that are named, each once, or all; says what is left out, and why.

    Args:
        models: MODEL or MODEL.TAG; empty for all.
        data: What to verify them on; empty for what each was trained on.

    Raises:
        ArgumentError: A model or tag is unknown, or nothing is left.
    """
    from cifarzoo.verification import sets_to_verify_on
    from cifarzoo.zoo.about import trained_on

    chosen: dict[tuple[str, str], _Chosen] = {}
    known = cifarzoo.list_models()
    for text in models or cifarzoo.list_models(pretrained=True):
        name, asked = split_tag(text, known)
        spec = cifarzoo.get_model_info(name)
        if not spec.weights:
            raise ArgumentError(
                f"model {name!r} has no pretrained weights; see `cifarzoo models --pretrained`"
            )
        if asked:
            spec.get_weights(asked)  # refuse before the images are read
        for tag in [asked] if asked else spec.weights:
            info = spec.weights[tag]
            own = trained_on(info) or "cifar10"
            if not models and info.pack and not info.path.is_file():
                _leave_out(name, tag, f"is not installed; pip install {info.pack}")
            elif data and data not in sets_to_verify_on(own):
                if asked:
                    raise ArgumentError(
                        f"the weights {name}.{tag} were trained on {own}; leave out --data"
                    )
                _leave_out(name, tag, f"was trained on {own}")
            else:
                chosen[name, tag] = _Chosen(name, tag, data or own, bool(asked))
    if not chosen:
        raise ArgumentError(
            f"none of these weights state an accuracy on {data!r}; leave out --data, and each is "
            "verified on the set that it was trained on"
        )
    return [*chosen.values()]


def _load_sets(chosen: list[_Chosen], root: Path | None, download: bool) -> dict[str, ImageSet]:
    """The test images by the name of their set; without those that cannot be had here.

    Raises:
        CifarZooError: None can be had, or not those of weights whose tag was named.
    """
    sets: dict[str, ImageSet] = {}
    missing: dict[str, CifarZooError] = {}
    for name in dict.fromkeys(weights.data for weights in chosen):
        try:
            sets[name] = load_set(name, "test", root, download)
        except (DataNotFoundError, DownloadError, UnknownNameError) as error:
            missing[name] = error
    for weights in chosen:
        reason = missing.get(weights.data)
        if reason is not None and (weights.is_named or not sets):
            raise reason
        if reason is not None:
            _leave_out(weights.model, weights.tag, f"was trained on {weights.data}: {reason}")
    return sets


def _leave_out(model: str, tag: str, why: str) -> None:
    typer.echo(f"left out: {model} {tag} {why}", err=True)


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
