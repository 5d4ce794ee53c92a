"""The command that trains."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cifarzoo
from cifarzoo.cli.application import (
    A_PATH,
    Data,
    Device,
    Download,
    PrecisionName,
    Root,
    app,
    command_again,
    complete_model,
    given_options,
    is_given,
    load_set,
    name_data,
)
from cifarzoo.errors import ArgumentError, CheckpointError, MissingExtraError, WeightsError
from cifarzoo.files.paths import command_line
from cifarzoo.files.writing import atomic_path
from cifarzoo.names import split_tag
from cifarzoo.plain import parse_json

if TYPE_CHECKING:
    from torch import nn

    from cifarzoo import EvaluationReport, History, ImageSet, ModelSpec, Recipe
    from cifarzoo.compute.place import Place
    from cifarzoo.runs import RunFolder

__all__ = ["train"]


@app.command(
    epilog="Examples: `cifarzoo train simple`, "
    "`cifarzoo train deep_bn --recipe original --seed 1`, "
    "`cifarzoo train resnet18_cifar --set epochs=2 --set augmentation.cutout=8`, "
    "`cifarzoo train --resume runs/mine`"
)
def train(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Name of a model, as `models` lists it.", autocompletion=complete_model
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Name of one of the model's recipes, or a .toml or .json file."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change one field of the recipe, as NAME=VALUE. Can be repeated."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the random numbers: the first parameters, the order of the images, and "
            "the augmentation. [default: the recipe's]"
        ),
    ] = None,
    data: Data = "cifar10",
    root: Root = None,
    download: Download = True,
    val_size: Annotated[
        int,
        typer.Option(
            help="Number of training images to hold out; accuracy on them is measured after every "
            "epoch."
        ),
    ] = 0,
    watch_test: Annotated[
        bool,
        typer.Option(
            help="Measure the accuracy on the test images after every epoch; it changes nothing "
            "in the training."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. [default: a new one in runs/]", **A_PATH),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run to continue, with the settings it was started with.", **A_PATH
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard logs too.")] = False,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    compile_network: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network with torch.compile, which can be faster on a GPU.",
        ),
    ] = False,
) -> None:
    """Train a model, and evaluate it on all test images.

    It is evaluated once, after the last epoch. One folder keeps everything: weights, curves,
    reports, and a checkpoint to continue from.
    """
    from cifarzoo.cli.resume import build_network, check_images, read_run
    from cifarzoo.compute.place import Place
    from cifarzoo.evaluation import log_report
    from cifarzoo.runs import RunFolder
    from cifarzoo.training.distributed import is_first_process

    if resume is not None:
        _refuse_with_resume(context)
        resume, facts, chosen = read_run(resume)
        precision = precision if is_given(context, "precision") else facts.get("precision", "auto")
        compile_network = compile_network or facts.get("compile", False)
        tensorboard |= facts.get("tensorboard", False)
    elif model is None:
        raise ArgumentError("name the model to train; `cifarzoo models` lists them")
    elif val_size and watch_test:
        raise ArgumentError(
            "--val-size and --watch-test both choose the images to measure after every epoch; "
            "give one of them"
        )
    else:
        if output is not None and is_first_process():
            _refuse_another_run(output)
        if recipe in cifarzoo.list_datasets() and not is_given(context, "data"):
            raise ArgumentError(
                f"the recipe {recipe!r} is for the image set of this name; add --data {recipe}"
            )
        chosen = _choose_recipe(cifarzoo.get_model_info(model), recipe, changes or [], seed)
        if watch_test and chosen.scheduler == "plateau":
            raise ArgumentError(
                "the scheduler 'plateau' follows the measured loss, and the test images must not "
                "decide anything; use --val-size instead of --watch-test"
            )
        facts = {
            "model": model,
            "data": data,
            "val_size": val_size,
            "watch_test": watch_test,
            "tensorboard": tensorboard,
            "compile": compile_network,
            "resuming": None,  # the command line needs to know no more than this
        }
    teacher = _load_teacher(chosen, facts, resume)
    train_set, test_set = (
        load_set(facts["data"], part, root, download) for part in ("train", "test")
    )
    val_set = test_set if facts["watch_test"] else None
    if facts["val_size"]:
        train_set, val_set = train_set.split(facts["val_size"])
    _check_classes(test_set.classes, train_set.classes)
    if resume is not None:
        check_images(resume, facts, train_set, val_set)
    name = facts["model"]
    if resume is not None and facts.get("resuming") is not None:
        network = build_network(resume, facts, chosen)
    else:
        network = cifarzoo.create_model(
            name,
            num_classes=len(train_set.classes),
            seed=chosen.seed,
            preprocessing=cifarzoo.get_dataset_info(facts["data"]).preprocessing,
            **chosen.model_options,
        )
        card = dataclasses.replace(cifarzoo.get_card(network), classes=train_set.classes)
        cifarzoo.attach_card(network, card)
    place = Place.find(device, precision)
    if not is_first_process():  # it helps to train, and leaves the rest to the first one
        helper = cifarzoo.Trainer(
            network, chosen, device=place, compile=compile_network, teacher=teacher
        )
        helper.fit(train_set, val_set, resume=resume or False)
        return
    if resume is not None:
        run = RunFolder(resume.parent)
    else:
        label = f"{name}-{Path(recipe or 'default').stem}"
        run = RunFolder(output) if output else RunFolder.new(label)
        facts["command"] = command_line("cifarzoo", *sys.argv[1:])
    typer.echo(
        f"{name} on {len(train_set):,} images of {train_set.name}, {place}\n"
        f"{chosen}\nrun folder {run.path}",
        err=True,
    )
    epochs_before = run.epochs_of_result()
    try:
        loggers = [cifarzoo.ConsoleLogger(), cifarzoo.CSVLogger(run.path / "history.csv")]
        if tensorboard:
            loggers.append(cifarzoo.TensorBoardLogger(run.path / "tensorboard"))
        trainer = cifarzoo.Trainer(
            network,
            chosen,
            device=place,
            compile=compile_network,
            loggers=loggers,
            output=run.path,
            teacher=teacher,
            metadata=facts,
        )
        history = trainer.fit(train_set, val_set, resume=resume or False)
        if len(history) == epochs_before:
            text = f"the run had ended after epoch {len(history)}: nothing was trained"
            typer.echo(text, err=True)
        held_out = val_set if facts["val_size"] else None
        reports, kept = _keep_reports(run, network, history, test_set, held_out, place)
        if tensorboard:
            log_report(run.path / "tensorboard", reports[0], images=test_set, recipe=chosen)
    except BaseException as problem:
        run.remove_if_empty()
        is_saved = run.checkpoint.exists()
        if not (isinstance(problem, KeyboardInterrupt) and is_saved):
            raise
        where = str(problem).split(";")[0] or "stopped"
        command = command_again(context, "train", "--resume", run.path)
        problem.args = (f"{where}; continue with: {command}",)
        raise
    _show_run(reports, history, kept)


def _keep_reports(
    run: RunFolder,
    network: nn.Module,
    history: History,
    test_set: ImageSet,
    held_out: ImageSet | None,
    place: Place,
) -> tuple[list[EvaluationReport], list[Path]]:
    """Evaluate what the Trainer has left of ``run``; add the numbers to it, and the pictures.

    Returns:
        The reports on the test images, without and with the mirrored image, and all files.
    """
    from cifarzoo.evaluation import evaluate_views, plot_history

    reports, validation = (
        evaluate_views(network, images, ("none", "flip"), device=place)
        if images is not None
        else []
        for images in (test_set, held_out)
    )
    facts = name_data(cifarzoo.read_metadata(run.path)["metadata"])
    facts["validation_accuracy"] = {report.tta: report.accuracy for report in validation}
    facts["test_accuracy"] = {report.tta: report.accuracy for report in reports}
    if md5 := cifarzoo.get_dataset_info(facts["data"]).md5:
        facts["data_md5"] = dict(md5)
    written = run.keep(network, facts, history.to_list())
    for report in reports:
        suffix = "" if report.tta == "none" else f"-{report.tta}"
        written.append(report.save(run.path / f"report{suffix}.json"))
    try:
        written.append(reports[0].save(run.path / "confusion.png"))
        with atomic_path(run.path / "curves.png") as part:
            plot_history(history, title=reports[0].model).savefig(part, dpi=150)
    except MissingExtraError:
        return reports, written
    return reports, [*written, run.path / "curves.png"]


def _in_json(text: str) -> str:
    """Words and numbers of Python as JSON has them: True is true, and +.5 is 0.5."""
    found = re.fullmatch(r"\+?(-?)(\d*)\.?(\d*)((?:[eE][+-]?\d+)?)", text)
    if found and (found[2] or found[3]):
        sign, whole, fraction, power = found.groups()
        return f"{sign}{whole or 0}{'.' * ('.' in text)}{fraction or '0' * ('.' in text)}{power}"
    return {"True": "true", "False": "false", "None": "null"}.get(text, text)


def _choose_recipe(
    spec: ModelSpec, name: str | None, changes: list[str], seed: int | None
) -> Recipe:
    from cifarzoo import Recipe

    is_file = name is not None and Path(name).suffix.lower() in (".toml", ".json")
    recipe = (
        Recipe.load(str(name)) if is_file else spec.get_recipe("default" if name is None else name)
    )
    # a change of the scheduler drops its options, so those given here come after it
    first = ("scheduler", "optimizer")
    for change in sorted(changes, key=lambda change: change.partition("=")[0].strip() not in first):
        field, separator, text = change.partition("=")
        if not separator:
            raise ArgumentError(f"--set takes NAME=VALUE; got {change!r}")
        try:
            value = parse_json(_in_json(text))
        except json.JSONDecodeError:  # a bare word
            value = text
        except ValueError as error:
            raise ArgumentError(f"--set {field}: {error}") from None
        recipe = recipe.override(field.strip(), value)
    return recipe if seed is None else recipe.replace(seed=seed)


def _load_teacher(recipe: Recipe, facts: dict[str, Any], resume: Path | None) -> nn.Module | None:
    """The network that the recipe learns from: the same one for the whole of a run."""
    if not recipe.teacher:
        return None
    name, tag = split_tag(recipe.teacher, cifarzoo.list_models())
    network = cifarzoo.create_model(name, pretrained=tag or True)
    found = cifarzoo.get_model_info(name).get_weights(tag or "default").sha256
    if facts.setdefault("teacher_sha256", found) != found:
        raise WeightsError(
            f"the weights of the teacher {recipe.teacher!r} differ from those that {resume} was "
            "started with; begin a new run, or install the version of cifarzoo that started it"
        )
    return network


def _check_classes(tested: Sequence[str], trained: Sequence[str]) -> None:
    """Refuse test images that the network could not be measured on in the end."""
    from cifarzoo.data.classes import class_numbers

    class_numbers(tested, trained, whose="the training images")
    if more := tested[len(trained) :]:
        raise ArgumentError(
            f"there are no training images of {', '.join(map(repr, more[:3]))}, and there are test "
            "images; train on images of all classes, or leave those test images out"
        )


def _refuse_another_run(folder: Path) -> None:
    """A run replaces nothing that lies in its folder."""
    from cifarzoo.runs import RunFolder

    run = RunFolder(folder)
    found = run.files()
    if run.note.exists() and not run.weights.exists() and not run.checkpoint.exists():
        raise CheckpointError(
            f"{folder} holds a run without a checkpoint: the run has not written one yet, or it "
            f"ended before it could; if it ended, remove its {', '.join(found)}, or choose another "
            "--output"
        )
    if found:
        raise CheckpointError(
            f"{folder} holds a run already (its {found[0]}); continue it with --resume, or "
            "choose another --output"
        )


def _refuse_with_resume(context: typer.Context) -> None:
    """A run goes on as it was started; only where and how loudly is a new choice."""
    free = {"resume", "root", "download", "tensorboard", "device", "precision", "compile_network"}
    if given := given_options(context, but=free):
        raise ArgumentError(
            "--resume continues a run with the settings it was started with; leave out "
            f"{', '.join(given)}"
        )


def _show_run(reports: list[EvaluationReport], history: History, written: list[Path]) -> None:
    plain, mirrored = reports
    typer.echo(str(plain))
    typer.echo(f"\naveraged with the mirror image (--tta flip): {mirrored.accuracy:.2%}")
    typer.echo(f"training took {history.seconds:.1f} s\n")
    for path in written:
        typer.echo(f"written: {path}")
    if not any(path.suffix == ".png" for path in written):
        typer.echo(
            "no pictures were drawn, because matplotlib is missing: pip install 'cifarzoo[plots]'",
            err=True,
        )
