"""The command ``cifarzoo``; the only file that prints."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from torch import nn
from typer.core import TyperGroup

import cifarzoo
from cifarzoo import CifarZooError, EvaluationReport, History, ImageSet, Recipe, run_folder
from cifarzoo.errors import ArgumentError, DataError
from cifarzoo.evaluation.inference import TestTimeAugmentation
from cifarzoo.evaluation.report import check_report_path
from cifarzoo.training.checkpoint import CHECKPOINT_NAME, find_checkpoint
from cifarzoo.weights import library_versions

__all__ = ["app", "main"]

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
Root = Annotated[
    Path | None,
    typer.Option(help="Folder of the data set. [default: $CIFARZOO_DATA, else the cache folder]"),
]
Download = Annotated[bool, typer.Option(help="Fetch the data set when it is missing.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionName = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option("--precision", help="Of the computation.")
]


def main() -> None:
    """Run the command line."""
    app()


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


@app.command(epilog='Example: `cifarzoo models "resnet*"`')
def models(
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern.")] = "*",
    pretrained: Annotated[bool, typer.Option(help="Only models with weights.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the models of the zoo."""
    names = cifarzoo.list_models(pattern, pretrained=True if pretrained else None)
    specs = [cifarzoo.get_model_info(name) for name in names]
    if as_json:
        _print_json([spec.to_dict() for spec in specs])
        return
    if not specs:
        which = f"{pattern!r}" if not pretrained else f"{pattern!r} with pretrained weights"
        typer.echo(f"no model matches {which}", err=True)
        return
    table = Table("model", box=None, pad_edge=False)
    for title in ("parameters", "MACs", "stated"):
        table.add_column(title, justify="right")
    table.add_column("description")
    for spec in specs:
        stated = f"{spec.stated_accuracy:g} %" if spec.stated_accuracy else ""
        table.add_row(
            spec.name, _short(spec.parameters), _short(spec.macs), stated, spec.description
        )
    Console().print(table)


@app.command(epilog="Example: `cifarzoo info deep_bn`")
def info(model: Annotated[str, typer.Argument(help="Name.")], as_json: AsJson = False) -> None:
    """Tell what is known about a model: size, source, recipes, weights."""
    spec = cifarzoo.get_model_info(model)
    if as_json:
        _print_json(spec.to_dict())
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("model", spec.name)
    table.add_row("description", spec.description)
    table.add_row("source", spec.source)
    table.add_row("parameters", f"{spec.parameters:,}")
    table.add_row("MACs", f"{spec.macs:,} for one 3x32x32 image")
    size = f"{spec.image_size}x{spec.image_size}" if spec.image_size else "any size"
    table.add_row("images", size)
    if spec.stated_accuracy:
        table.add_row("stated accuracy", f"{spec.stated_accuracy:g} %")
    table.add_row("options", ", ".join(f"{k}={v!r}" for k, v in spec.options.items()) or "none")
    table.add_row("weights", ", ".join(spec.weights) or "none")
    for name, recipe in spec.recipes.items():
        table.add_row(f"recipe {name}", _describe(recipe))
    Console().print(table)


@app.command(epilog="Example: `cifarzoo summary deep_bn`")
def summary(
    model: Annotated[str, typer.Argument(help="Name.")],
    num_classes: Annotated[int, typer.Option(help="Size of the output.")] = 10,
) -> None:
    """Print layers, output shapes, parameters and multiply-accumulates."""
    typer.echo(str(cifarzoo.summary(cifarzoo.create_model(model, num_classes=num_classes))))


@app.command(epilog="Example: `cifarzoo data cifar10 --root ~/data`")
def data(
    name: Annotated[DataName, typer.Argument(help="Which image set.")] = "cifar10",
    root: Root = None,
    download: Download = True,
    as_json: AsJson = False,
) -> None:
    """Fetch a data set when it is missing, and check every file."""
    sets = [_load(name, split, root, download) for split in ("train", "test")]
    if as_json:
        facts = [
            {"name": s.name, "images": len(s), "classes": s.classes, "sha256": s.sha256()}
            for s in sets
        ]
        _print_json(facts)
        return
    for images in sets:
        typer.echo(f"{images.name}: {len(images):,} images, {len(images.classes)} classes, intact")


@app.command(
    epilog="Examples: `cifarzoo train simple`, "
    "`cifarzoo train deep_bn --recipe original --seed 1`, "
    "`cifarzoo train resnet18_cifar --set epochs=2 --set augmentation.cutout=8`, "
    "`cifarzoo train --resume runs/mine`"
)
def train(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Name.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe of the model, or a .toml or .json file.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the recipe: NAME=VALUE, repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of parameters, order, draws.")] = None,
    data: Data = "cifar10",
    root: Root = None,
    download: Download = True,
    val_size: Annotated[
        int, typer.Option(help="Training images held out and measured every epoch.")
    ] = 0,
    watch_test: Annotated[
        bool, typer.Option(help="Measure the test images every epoch; nothing is chosen by it.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run. [default: a new one in runs/]")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a run to continue, as it was started.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard logs.")] = False,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    compile_network: Annotated[
        bool, typer.Option("--compile", help="Fuse the network with torch.compile; for GPUs.")
    ] = False,
) -> None:
    """Train a model, evaluate its last epoch on all test images, and keep everything."""
    if resume is not None:
        _refuse_with_resume(context)
        find_checkpoint(resume)
        facts, chosen = run_folder.read_claim(resume)
    elif model is None:
        raise ArgumentError("name the model to train; `cifarzoo models` lists them")
    elif val_size and watch_test:
        raise ArgumentError("--val-size and --watch-test both say what to measure; choose one")
    else:
        chosen = _choose_recipe(cifarzoo.get_model_info(model), recipe, changes or [], seed)
        facts = {"model": model, "data": data, "val_size": val_size, "watch_test": watch_test}
    train_set, test_set = (_load(facts["data"], part, root, download) for part in ("train", "test"))
    val_set = test_set if facts["watch_test"] else None
    if facts["val_size"]:
        train_set, val_set = train_set.split(facts["val_size"])
    if facts.setdefault("data_sha256", train_set.sha256()) != train_set.sha256():
        raise DataError(f"the images are not those that {resume} was started with; see --root")
    name = facts["model"]
    folder = resume or output or run_folder.new_name(f"{name}-{Path(recipe or 'default').stem}")
    network = cifarzoo.create_model(name, num_classes=len(train_set.classes), seed=chosen.seed)
    loggers = [cifarzoo.ConsoleLogger(), cifarzoo.CSVLogger(folder / "history.csv")]
    if tensorboard:
        loggers.append(cifarzoo.TensorBoardLogger(folder / "tensorboard"))
    trainer = cifarzoo.Trainer(
        network,
        chosen,
        device=device,
        precision=precision,
        compile=compile_network,
        loggers=loggers,
        output=folder,
    )
    if resume is None:
        facts["command"] = shlex.join(["cifarzoo", *sys.argv[1:]])
        facts["versions"] = library_versions()
        run_folder.claim(folder, facts, chosen)
    number = str(trainer.precision).removeprefix("torch.")
    typer.echo(
        f"{name} on {len(train_set):,} images of {train_set.name}, {trainer.device} in {number}\n"
        f"{_describe(chosen)}\nrun folder {folder}",
        err=True,
    )
    try:
        history = trainer.fit(train_set, val_set, resume=resume is not None)
    except KeyboardInterrupt as interrupt:
        if not (folder / CHECKPOINT_NAME).exists():
            raise
        where = str(interrupt).split(";")[0] or "stopped"
        command = shlex.join(["cifarzoo", "train", "--resume", str(folder)])
        raise KeyboardInterrupt(f"{where}; continue with: {command}") from None
    except CifarZooError:
        run_folder.disclaim(folder)
        raise
    reports = [
        cifarzoo.evaluate(network, test_set, tta=tta, device=device, precision=precision)
        for tta in ("none", "flip")
    ]
    provenance = {**facts, "recipe": chosen.to_dict(), "precision": number}
    _show_run(reports, history, run_folder.keep(folder, network, provenance, history, reports))


@app.command(
    epilog="Examples: `cifarzoo evaluate runs/mine`, "
    "`cifarzoo evaluate weights.safetensors --tta flip --save report.md --save matrix.png`"
)
def evaluate(
    context: typer.Context,
    weights: Annotated[
        str, typer.Argument(help="Weights file, run folder, or a model with pretrained weights.")
    ],
    data: Data = "cifar10",
    root: Root = None,
    download: Download = True,
    tta: Annotated[
        TestTimeAugmentation, typer.Option(help="flip averages with the mirror image.")
    ] = "none",
    save: Annotated[
        list[Path] | None,
        typer.Option(help="Also write to a .json, .md, .txt, .png, .svg or .pdf file."),
    ] = None,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure weights on the test images."""
    for path in save or []:
        check_report_path(path)
    network = _open(weights)
    if Path(weights).is_dir() and not _is_given(context, "data"):
        data = run_folder.read_claim(Path(weights))[0]["data"]  # what it was trained on
    test_set = _load(data, "test", root, download)
    report = cifarzoo.evaluate(network, test_set, tta=tta, device=device, precision=precision)
    typer.echo(report.to_json() if as_json else str(report))
    for path in save or []:
        typer.echo(f"written: {report.save(path)}", err=True)


@app.command(epilog="Example: `cifarzoo predict runs/mine frog.png ship.jpg`")
def predict(
    weights: Annotated[
        str, typer.Argument(help="Weights file, run folder, or a model with pretrained weights.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files of any size.")],
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what is on pictures."""
    predictions = cifarzoo.predict(_open(weights), images, device=device)
    if as_json:
        _print_json(
            [
                {"file": str(path), **dataclasses.asdict(found)}
                for path, found in zip(images, predictions, strict=True)
            ]
        )
        return
    for path, found in zip(images, predictions, strict=True):
        ranking = ", ".join(f"{name} {probability:.1%}" for name, probability in found.top)
        typer.echo(f"{path}: {ranking}" + (f" ({found.note})" if found.note else ""))


def _load(name: str, split: Literal["train", "test"], root: Path | None, fetch: bool) -> ImageSet:
    if name == "sample":
        return cifarzoo.load_sample(split)
    load = cifarzoo.load_cifar10 if name == "cifar10" else cifarzoo.load_cifar100
    return load(split, root=root, download=fetch)


def _open(weights: str) -> nn.Module:
    """A network from a weights file, a run folder, or the name of a pretrained model."""
    path = Path(weights)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return cifarzoo.load_model(path)
    return cifarzoo.create_model(weights, pretrained=True)


def _choose_recipe(
    spec: cifarzoo.ModelSpec, name: str | None, changes: list[str], seed: int | None
) -> Recipe:
    is_file = name is not None and Path(name).suffix in (".toml", ".json")
    recipe = Recipe.load(str(name)) if is_file else spec.get_recipe(name or "default")
    for change in changes:
        field, separator, text = change.partition("=")
        if not separator:
            raise ArgumentError(f"--set takes NAME=VALUE; got {change!r}")
        try:
            value = json.loads(text)
        except ValueError:  # a bare word
            value = text
        recipe = recipe.override(field.strip(), value)
    return recipe if seed is None else recipe.replace(seed=seed)


def _show_run(reports: list[EvaluationReport], history: History, written: list[Path]) -> None:
    plain, mirrored = reports
    typer.echo(str(plain))
    typer.echo(f"\nwith the mirrored image (tta=flip): {mirrored.accuracy:.2%}")
    typer.echo(f"training took {history.seconds:.1f} s\n")
    for path in written:
        typer.echo(f"written: {path}")
    if not any(path.suffix == ".png" for path in written):
        typer.echo("no pictures: they need matplotlib: pip install 'cifarzoo[plots]'", err=True)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_with_resume(context: typer.Context) -> None:
    """A run goes on as it was started; only where and how loudly is a new choice."""
    free = {"resume", "root", "download", "tensorboard", "device", "precision", "compile_network"}
    given = [
        "--set" if name == "changes" else name if name == "model" else f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in free and _is_given(context, name)
    ]
    if given:
        raise ArgumentError(f"--resume continues a run as it was; leave out {', '.join(given)}")


def _describe(recipe: Recipe) -> str:
    plain = Recipe.from_dict({}).to_dict()
    always = ("epochs", "batch_size", "optimizer", "learning_rate", "scheduler", "augmentation")
    shown = {k: v for k, v in recipe.to_dict().items() if k in always or v != plain[k]}
    return ", ".join(
        f"{key}={_flat(value) if isinstance(value, dict) else value}"
        for key, value in shown.items()
    )


def _flat(values: dict[str, Any]) -> str:
    return "(" + ", ".join(f"{key}={value}" for key, value in values.items()) + ")"


def _short(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return str(count)


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=1))
