"""The application: the options, errors and words that its commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from torch import nn
from typer.core import TyperGroup

import cifarzoo
from cifarzoo import CifarZooError, ImageSet, Recipe
from cifarzoo.errors import ArgumentError
from cifarzoo.factory import locate_weights
from cifarzoo.weights import find_weights, read_metadata

__all__ = [
    "AsJson",
    "Data",
    "DataName",
    "Device",
    "Download",
    "PrecisionName",
    "Root",
    "TestData",
    "Weights",
    "app",
    "choose_data",
    "describe",
    "is_given",
    "load_set",
    "load_test",
    "open_weights",
    "print_json",
    "training_facts",
    "weights_file",
]

DataName = Literal["cifar10", "cifar100", "sample"]


class _Commands(TyperGroup):
    """Turns the library's errors into a message and an exit code: 1, or 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CifarZooError as error:
            typer.secho(f"error: {error}", err=True, fg="red")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            typer.secho(str(interrupt) or "stopped", err=True, fg="yellow")
            raise typer.Exit(130) from interrupt


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="The CIFAR-10 model zoo: list, train, evaluate, predict.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Data = Annotated[DataName, typer.Option("--data", help="Which image set.")]
TestData = Annotated[
    Literal["cifar10", "cifar10.1", "cifar100", "sample"],
    typer.Option(
        "--data", show_default=False, help="Which images, instead of those it was trained for."
    ),
]
_SUFFIXES = (".safetensors", ".pt", ".pth", ".th")
Weights = Annotated[
    str, typer.Argument(help="Weights file, run folder, or pretrained model: MODEL or MODEL.TAG.")
]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder of the data set. [default: $CIFARZOO_DATA, else the cache folder]"),
]
Download = Annotated[bool, typer.Option(help="Fetch the data set when it is missing.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionName = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option("--precision", help="Of the computation.")
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"cifarzoo {cifarzoo.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def load_set(
    name: str, split: Literal["train", "test"], root: Path | None, fetch: bool
) -> ImageSet:
    """One part of the image set called ``name``."""
    if name == "sample":
        return cifarzoo.load_sample(split)
    if name == "cifar10.1":
        return cifarzoo.load_cifar10_1(root=root)
    load = cifarzoo.load_cifar10 if name == "cifar10" else cifarzoo.load_cifar100
    return load(split, root=root, download=fetch)


def load_test(networks: Sequence[nn.Module], name: str, root: Path | None, fetch: bool) -> ImageSet:
    """The test images of the set called ``name``, for networks that tell its classes apart."""
    test_set = load_set(name, "test", root, fetch)
    for network in networks:
        card = cifarzoo.get_card(network)
        if card.classes is not None and not {*test_set.classes} <= {*card.classes}:
            some = ", ".join([*card.classes[:3], "..."][: len(card.classes)])
            raise ArgumentError(
                f"{card.name} tells apart {some}, which are not the classes of {name}; choose its "
                "--data, or evaluate it in Python on its own images"
            )
    return test_set


def choose_data(context: typer.Context, weights: str, data: str) -> str:
    """What to measure weights on: ``data`` if it is asked for, else what they were trained on."""
    found = None if is_given(context, "data") else training_facts(weights).get("data")
    return str(found) if found in get_args(DataName) else data


def open_weights(weights: str) -> nn.Module:
    """A network from a weights file, a run folder, or a pretrained model, with a tag or without."""
    path = Path(weights)
    name, tag = split_tag(weights)
    if not path.exists() and path.suffix not in _SUFFIXES and name in cifarzoo.list_models():
        return cifarzoo.create_model(name, pretrained=tag or True)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return cifarzoo.load_model(path)
    return cifarzoo.create_model(weights, pretrained=True)  # says which names it may mean


def split_tag(text: str) -> tuple[str, str]:
    """``MODEL.TAG`` as both, or ``MODEL`` and an empty tag."""
    name, _, tag = text.partition(".")
    return name, tag


def weights_file(weights: str) -> Path:
    """The file that `open_weights` opened."""
    path = Path(weights)
    if path.exists():
        return find_weights(path)
    name, tag = split_tag(weights)
    return locate_weights(cifarzoo.get_model_info(name), tag or "default")


def training_facts(weights: str) -> dict[str, Any]:
    """What the file that `open_weights` opened says about its training; may be empty."""
    facts: dict[str, Any] = read_metadata(weights_file(weights)).get("metadata", {})
    return facts


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, be it with its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def describe(recipe: Recipe) -> str:
    """What a recipe sets, in a line."""
    plain = Recipe.from_dict({}).to_dict()
    always = ("epochs", "batch_size", "optimizer", "learning_rate", "scheduler", "augmentation")
    shown = {k: v for k, v in recipe.to_dict().items() if k in always or v != plain[k]}
    return ", ".join(
        f"{key}={_flat(value) if isinstance(value, dict) else value}"
        for key, value in shown.items()
    )


def _flat(values: dict[str, Any]) -> str:
    return "(" + ", ".join(f"{key}={value}" for key, value in values.items()) + ")"


def print_json(content: Any) -> None:
    """Print for a program to read."""
    typer.echo(json.dumps(content, indent=1))
