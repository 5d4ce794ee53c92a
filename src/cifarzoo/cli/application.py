"""The application: the options, errors and words that its commands share.

What takes long to import, torch above all, is imported within the commands: help is for people who
wait for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import cifarzoo
from cifarzoo.errors import ArgumentError, CifarZooError, WeightsError
from cifarzoo.files.paths import command_line, user_path
from cifarzoo.names import SHORT_NAMES, printable

if TYPE_CHECKING:
    from torch import nn

    from cifarzoo import ImageSet

__all__ = [
    "A_PATH",
    "SETS",
    "AsJson",
    "Data",
    "Device",
    "Download",
    "Model",
    "Opened",
    "PrecisionName",
    "Root",
    "Temperature",
    "TestData",
    "Views",
    "Weights",
    "app",
    "choose_data",
    "command_again",
    "complete_model",
    "given_options",
    "in_options",
    "is_given",
    "load_set",
    "load_test",
    "made_for",
    "name_data",
    "open_weights",
    "print_error",
    "print_json",
    "tell_apart",
]


class _Commands(TyperGroup):
    """Turns the library's errors into a message and an exit code: 1, or 130 for Ctrl-C.

    After SIGTERM it is 143, after SIGHUP 129: 128 and the number of the signal.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CifarZooError as error:
            if ctx.params.get("debug"):
                raise
            print_error(error, self.get_command(ctx, ctx.invoked_subcommand or ""))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            with contextlib.suppress(OSError):  # after SIGHUP there may be no terminal
                typer.secho(str(interrupt) or "stopped", err=True, fg="yellow")
            raise typer.Exit(getattr(interrupt, "code", 130)) from interrupt
        except Exception as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            slip: Any = error  # perhaps an unknown option, whose class typer does not export
            field = getattr(slip, "option_name", "").lstrip("-").replace("-", "_")
            field = SHORT_NAMES.get(field, field)
            if field and field in _fields(command):
                slip.message += f"; set the recipe's field: --set {field}=VALUE"
            raise


def _fields(command: Any) -> set[str]:
    """The fields of the recipe that ``--set`` of the command changes, if it has one."""
    if all(option.name != "changes" for option in getattr(command, "params", ())):
        return set()
    from cifarzoo.recipe import Recipe

    return {field.name for field in dataclasses.fields(Recipe)}


def print_error(error: CifarZooError, command: Any = None) -> None:
    """Print an error of the library, in the words of the command that met it."""
    typer.secho(printable(f"error: {in_options(str(error), command)}"), err=True, fg="red")


def in_options(text: str, command: Any) -> str:
    """``text`` with the options of ``command`` in place of Python's arguments.

    So the library's "pass download=True" becomes "pass --download"; a field of the recipe, where
    there is ``--set`` for it, becomes "--set clip_norm=1". A function that lists names becomes the
    command that does, or is left out: the message names the near ones.
    """
    text = re.sub(r"\blist_models\(([^)]*)\)", _models_command, text)
    text = re.sub(r" See list_\w+\(\)\.", "", text)
    options = {option.name: option for option in getattr(command, "params", ()) if option.opts}
    fields = _fields(command)
    if "val_size" in options:
        text = text.replace("split size", "--val-size")

    def name(match: re.Match[str]) -> str:
        argument, value = match.groups()
        if re.search(r"\w\([^()]*$", text[: match.start()]):  # a line of a program: it stays one
            return match[0]
        option = options.get(argument)
        if option is None or not option.opts[0].startswith("--"):
            return f"--set {match[0]}" if argument in fields else match[0]
        if value == "False" and option.secondary_opts:
            return str(option.secondary_opts[0])
        return f"{option.opts[0]} {value}".removesuffix(" True").strip()

    text = re.sub(r"(?<!--set )(?<![\w./-])([a-z_]+)=([\w.]*)", name, text)
    return re.sub(r"(?<!-)\bset --set ", "give --set ", text)


def _models_command(call: re.Match[str]) -> str:
    """The command that lists what a call of `list_models` lists."""
    argument = call[1].replace("pretrained=True", "--pretrained")
    return f"`cifarzoo models {argument}".rstrip() + "`"


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="The CIFAR-10 model zoo: list, train, evaluate, predict.",
)


def complete_model(incomplete: str) -> list[str]:
    """Names of the zoo's own models that begin so, read from the index, which needs no torch."""
    folder = Path(cifarzoo.__file__).parent / "zoo" / "index"
    text = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.toml"))
    names = re.findall(r"^\[(\w+)\]", text, re.MULTILINE)
    return sorted(name for name in names if name.startswith(incomplete))


class _PathError(CifarZooError):
    """A path cannot be used; no ValueError, of which typer would leave out the message."""


def _path(text: str | Path) -> Path:
    try:
        return user_path(text)
    except ArgumentError as error:
        raise _PathError(str(error)) from error


# not as typer reads a Path, to which an empty text is this folder
A_PATH: dict[str, Any] = {"parser": _path, "metavar": "PATH"}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
SETS = "cifar10, cifar100, sample, folder:PATH, or the name of a registered set."
Data = Annotated[str, typer.Option("--data", help=f"Image set to use: {SETS}")]
TestData = Annotated[
    str,
    typer.Option(
        "--data",
        show_default=False,
        help=f"Image set to test on: cifar10.1, {SETS} [default: the set of the training]",
    ),
]
Weights = Annotated[
    str, typer.Argument(help="Weights file, run folder, or pretrained model: MODEL or MODEL.TAG.")
]
Model = Annotated[
    str,
    typer.Argument(help="Name of a model, as `models` lists it.", autocompletion=complete_model),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder that holds the data set. [default: $CIFARZOO_DATA, else the cache folder]",
        **A_PATH,
    ),
]
Download = Annotated[bool, typer.Option(help="Download the data set if it is missing.")]
Temperature = Annotated[
    float,
    typer.Option(help="Number that divides the logits; `calibrate` finds a good one."),
]
Device = Annotated[str, typer.Option(help="Device that computes: auto, cpu, cuda, cuda:1 or mps.")]
PrecisionName = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        "--precision",
        help="Number format of the computation; auto takes bfloat16 where the device computes "
        "it in hardware, else float32.",
    ),
]
Views = Annotated[
    Literal["none", "flip", "flip_shift", "flip_shift_unsure"],
    typer.Option(
        help="Views of each image to average over: flip adds the mirror image, flip_shift takes "
        "six views, flip_shift_unsure takes six for the least confident quarter of the images."
    ),
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
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import", help="Import a Python module of yours that registers models or more."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error happened.")] = False,
) -> None:
    for module in modules or []:
        sys.path.insert(0, os.getcwd())  # where people try things
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the module raises
            hint = f"; leave out .py: --import {module[:-3]}" if module.endswith(".py") else ""
            raise ArgumentError(f"module {module!r} cannot be imported: {error}{hint}") from error
        finally:
            sys.path.pop(0)


def made_for(model: str) -> int:
    """Height and width of the images that a model of this name takes, as it is registered."""
    try:
        return cifarzoo.get_model_info(model).image_size or 32
    except ArgumentError:  # of a network that the zoo did not build
        return 32


def load_set(
    name: str, split: Literal["train", "test"], root: Path | None, fetch: bool
) -> ImageSet:
    """One part of the image set called ``name``."""
    return cifarzoo.load_dataset(name, split, root=root, download=fetch)


def load_test(networks: Sequence[nn.Module], name: str, root: Path | None, fetch: bool) -> ImageSet:
    """The test images of the set called ``name``, for networks that tell its classes apart."""
    from cifarzoo.data.classes import knows_all

    test_set = load_set(name, "test", root, fetch)
    for network in networks:
        card = cifarzoo.get_card(network)
        if card.classes is not None and not knows_all(test_set.classes, card.classes):
            some = ", ".join([*card.classes[:3], "..."][: len(card.classes)])
            raise ArgumentError(
                f"the classes of {card.name} ({some}) are not those of the image set {name!r}; "
                "name the set it was trained on with --data, or evaluate it in Python on its own "
                "images"
            )
    return test_set


def choose_data(context: typer.Context, weights: str, facts: dict[str, Any], data: str) -> str:
    """What to measure weights on: ``data`` if it is asked for, else what they were trained on."""
    if is_given(context, "data"):
        return data
    if "data" not in facts and "data_name" in facts:
        raise ArgumentError(
            f"{weights} was trained on {facts['data_name']!r}, which --data does not know; name "
            "the image set to test on with --data, or evaluate it in Python on its own images"
        )
    found = facts.get("data")
    return str(found) if found is not None else data


def tell_apart(weights: Sequence[str], names: Sequence[str], tags: Sequence[str]) -> list[str]:
    """What to call networks: as shortly as it tells each from those of the same name.

    Args:
        weights: What stands on the command line, for each.
        names: Their names.
        tags: Which of a model's pretrained weights they have; empty for files and folders.
    """
    labels = []
    for text, name, tag in zip(weights, names, tags, strict=True):
        alike = [number for number, other in enumerate(names) if other == name]
        if len(alike) == 1:
            labels.append(name)
        elif tag and [tags[number] for number in alike].count(tag) == 1:
            labels.append(f"{name} {tag}")
        else:
            labels.append(f"{name} ({_own_end(text, [weights[number] for number in alike])})")
    return labels


def _own_end(path: str, paths: Sequence[str]) -> str:
    """The last parts of a path, as many as none of the other paths ends in."""
    parts = Path(path).parts
    for count in range(1, len(parts)):
        if sum(Path(each).parts[-count:] == parts[-count:] for each in paths) == 1:
            return str(Path(*parts[-count:]))
    return path


@dataclasses.dataclass(frozen=True)
class Opened:
    """A network from a weights file, a run folder, or a pretrained model, with a tag or without.

    Args:
        network: It.
        path: Its file.
        facts: What the file says about its training; may be empty.
        tag: Which of a model's pretrained weights it has; empty for a file or folder.
    """

    network: nn.Module
    path: Path
    facts: dict[str, Any]
    tag: str


def open_weights(weights: str) -> Opened:
    """What a command is about."""
    from cifarzoo.runs import check_facts
    from cifarzoo.zoo.locate import find_any

    found = find_any(weights)
    network = (
        cifarzoo.create_model(found.model, pretrained=found.tag)
        if found.model
        else cifarzoo.load_model(found.path)
    )
    facts = cifarzoo.read_metadata(found.path).get("metadata", {})
    checked = check_facts(facts, str(found.path), WeightsError)
    return Opened(network, found.path, name_data(checked), found.tag)


def name_data(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run, with the options that name its images here, where they can be told.

    A run of the command line notes its options; one of a program, the names of its image sets.
    """
    name, _, part = (facts.get("data_name") or "").removesuffix(" held out").rpartition(" ")
    known = {
        info.set_name: info.name
        for info in map(cifarzoo.get_dataset_info, cifarzoo.list_datasets())
    }
    if "data" in facts or name not in known or part != "train":
        return dict(facts)
    found = {**facts, "data": known[name]}
    measured = facts.get("val_name")
    if measured in (None, f"{name} train held out", f"{name} test"):
        found["watch_test"] = measured == f"{name} test"
        is_held_out = measured is not None and not found["watch_test"]
        found["val_size"] = facts.get("val_images") if is_held_out else 0
    return found


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, be it with its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def given_options(context: typer.Context, *, but: Collection[str]) -> list[str]:
    """The options and arguments on the command line, apart from the parameters called ``but``."""
    return [
        each.opts[0]
        for each in context.command.params
        if each.name is not None and each.name not in but and is_given(context, each.name)
    ]


def command_again(context: typer.Context, *words: str | Path) -> str:
    """A command to be copied, with what is not remembered and was said of the one that runs."""
    modules = (context.parent.params.get("modules") if context.parent else None) or []
    imports = [word for module in modules for word in ("--import", module)]
    said: list[str] = []
    for each in context.command.params:
        value = context.params.get(each.name or "")
        if each.name in ("root", "device") and is_given(context, each.name):
            said += [each.opts[0], str(value)]
        elif each.name == "download" and is_given(context, each.name):
            said.append(each.opts[0] if value else each.secondary_opts[0])
    return command_line("cifarzoo", *imports, *words, *said)


def print_json(content: Any) -> None:
    """Print for a program to read."""
    typer.echo(json.dumps(content, indent=1))
