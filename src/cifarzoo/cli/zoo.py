"""Commands about models and data: models, info, summary, recipes, data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

import cifarzoo
from cifarzoo.cli.application import (
    SETS,
    AsJson,
    Download,
    Model,
    Root,
    app,
    complete_model,
    is_given,
    load_set,
    made_for,
    open_weights,
    print_json,
)
from cifarzoo.errors import ArgumentError
from cifarzoo.files.paths import user_path
from cifarzoo.names import split_tag

if TYPE_CHECKING:
    from cifarzoo import ModelSpec

__all__ = ["data", "info", "models", "recipes", "short_count", "summary"]


@app.command(epilog='Example: `cifarzoo models "resnet*"`')
def models(
    pattern: Annotated[
        str,
        typer.Argument(help="Pattern that the names must match; timm:* lists timm's networks."),
    ] = "*",
    pretrained: Annotated[
        bool, typer.Option(help="List only models with pretrained weights.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models of the zoo.

    The accuracy `stated` is that of the source, `weights` that of the default weights on the test
    images; where several seeds were trained, it is their mean.
    """
    names = cifarzoo.list_models(pattern, pretrained=True if pretrained else None)
    if ":" in pattern and names:  # to tell more, each would have to be built
        print_json(names) if as_json else typer.echo("\n".join(names))
        return
    specs = [cifarzoo.get_model_info(name) for name in names]
    if as_json:
        print_json([spec.to_dict() for spec in specs])
        return
    if not specs:
        which = f"{pattern!r}" if not pretrained else f"{pattern!r} with pretrained weights"
        typer.echo(f"no model matches {which}", err=True)
        return
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("model", no_wrap=True)
    for title in ("parameters", "MACs", "stated", "weights"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("description", no_wrap=True, overflow="ellipsis", ratio=1)
    for spec in specs:
        stated = f"{spec.stated_accuracy:g} %" if spec.stated_accuracy else ""
        table.add_row(
            spec.name,
            short_count(spec.parameters),
            short_count(spec.macs),
            stated,
            _weights_accuracy(spec),
            spec.description,
        )
    Console().print(table)


@app.command(epilog="Example: `cifarzoo info deep_bn`")
def info(model: Model, as_json: AsJson = False) -> None:
    """Show the size, source, recipes and weights of a model."""
    if user_path(model).exists() and model not in cifarzoo.list_models():
        raise ArgumentError(
            f"info takes the name of a model; `cifarzoo summary {model}` shows the layers of these "
            f"weights, and `cifarzoo evaluate {model}` what they were trained on and reach"
        )
    spec = cifarzoo.get_model_info(model)
    if as_json:
        print_json(spec.to_dict())
    else:
        typer.echo(str(spec))


def _is_weights(text: str) -> bool:
    """Whether it names weights or a run rather than a model."""
    known = cifarzoo.list_models()
    name, tag = split_tag(text, known)
    return text not in known and (bool(tag and name in known) or user_path(text).exists())


@app.command(epilog="Examples: `cifarzoo summary deep_bn`, `cifarzoo summary runs/mine`")
def summary(
    context: typer.Context,
    model: Model,
    num_classes: Annotated[int, typer.Option(help="Number of classes of the network.")] = 10,
) -> None:
    """Print the layers of a model, or of weights or a run.

    Each has its output shape, its parameters and its multiply-accumulates (MACs).
    """
    if not _is_weights(model):
        network = cifarzoo.create_model(model, num_classes=num_classes)
    elif is_given(context, "num_classes"):
        raise ArgumentError("--num-classes is for models; weights have the classes that they have")
    else:
        network = open_weights(model).network
    size = made_for(cifarzoo.get_card(network).name)
    typer.echo(str(cifarzoo.summary(network, image_size=size)))


@app.command(
    epilog="Examples: `cifarzoo recipes`, `cifarzoo recipes airbench94 fast94`, "
    "`cifarzoo recipes simple > mine.toml`, then `cifarzoo train simple --recipe mine.toml`"
)
def recipes(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Name of a model; without it, all models are listed.",
            autocompletion=complete_model,
        ),
    ] = None,
    recipe: Annotated[str, typer.Argument(help="Name of the recipe to print.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Print a recipe, or list the recipes of all models.

    A recipe is printed as TOML, which `train --recipe` reads.
    """
    if model is None:
        specs = [cifarzoo.get_model_info(name) for name in cifarzoo.list_models()]
        if as_json:
            print_json({spec.name: [*spec.recipes] for spec in specs})
            return
        width = max(len(spec.name) for spec in specs)
        for spec in specs:
            typer.echo(f"{spec.name:<{width}}  {', '.join(spec.recipes)}")
        return
    spec = cifarzoo.get_model_info(model)
    found = spec.get_recipe(recipe)
    if as_json:
        print_json(found.to_dict())
        return
    typer.echo(found.to_toml(), nl=False)
    if others := [name for name in spec.recipes if name != recipe]:
        typer.echo(f"other recipes of {model}: {', '.join(others)}", err=True)


@app.command(epilog="Example: `cifarzoo data cifar10 --root ~/data`")
def data(
    name: Annotated[str, typer.Argument(help=f"Image set: {SETS}")] = "cifar10",
    root: Root = None,
    download: Download = True,
    as_json: AsJson = False,
) -> None:
    """Download a data set if it is missing, and check every file."""
    known = cifarzoo.get_dataset_info(name).splits
    sets = [load_set(name, part, root, download) for part in ("train", "test") if part in known]
    if as_json:
        facts = [
            {"name": s.name, "images": len(s), "classes": s.classes, "sha256": s.sha256()}
            for s in sets
        ]
        print_json(facts)
        return
    for images in sets:
        typer.echo(f"{images.name}: {len(images):,} images, {len(images.classes)} classes, intact")


def _weights_accuracy(spec: ModelSpec, tag: str = "default") -> str:
    """What weights reach on the test images, as the index says: the mean over their seeds."""
    from cifarzoo.zoo.about import mean_accuracy

    info = spec.weights.get(tag)
    accuracy = mean_accuracy(info) if info else None
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def short_count(count: int) -> str:
    """``count`` in four digits, as in 11.17 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return str(count)
