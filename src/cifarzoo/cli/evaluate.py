"""Commands that look at trained weights: evaluate, calibrate, report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import cifarzoo
from cifarzoo.cli.application import (
    A_PATH,
    AsJson,
    Device,
    Download,
    Opened,
    PrecisionName,
    Root,
    Temperature,
    TestData,
    Views,
    Weights,
    app,
    choose_data,
    command_again,
    is_given,
    load_set,
    load_test,
    open_weights,
    print_json,
    tell_apart,
)
from cifarzoo.errors import ArgumentError, DataError, OutputError, WeightsError
from cifarzoo.files.paths import command_line, user_path
from cifarzoo.files.progress import count_bar
from cifarzoo.files.writing import make_directory

if TYPE_CHECKING:
    from cifarzoo import ImageSet
    from cifarzoo.evaluation import PageEntry
    from cifarzoo.evaluation.views import TestTimeAugmentation

__all__ = ["calibrate", "evaluate", "report"]


@app.command(
    epilog="Examples: `cifarzoo evaluate runs/mine`, "
    "`cifarzoo evaluate weights.safetensors --tta flip --save report.md --save matrix.png`"
)
def evaluate(
    context: typer.Context,
    weights: Weights,
    data: TestData = "cifar10",
    root: Root = None,
    download: Download = True,
    tta: Views = "none",
    temperature: Temperature = 1.0,
    save: Annotated[
        list[Path] | None,
        typer.Option(
            help="Write the report to a .json, .md or .txt file too, or the confusion matrix to a "
            ".png, .svg or .pdf file. Can be repeated."
        ),
    ] = None,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of a model on the test images."""
    from cifarzoo.evaluation.report.report import check_report_path
    from cifarzoo.evaluation.views import count_views

    for path in save or []:
        check_report_path(path)
    opened = open_weights(weights)
    network = opened.network
    chosen = choose_data(context, weights, opened.facts, data)
    test_set = load_test([network], chosen, root, download)
    with count_bar("images", count_views([tta], len(test_set))) as advance:
        report = cifarzoo.evaluate(
            network,
            test_set,
            tta=tta,
            temperature=temperature,
            device=device,
            precision=precision,
            advance=advance,
        )
    written = [report.save(path) for path in save or []]
    typer.echo(report.to_json() if as_json else str(report))  # last, for nobody may be reading
    for path in written:
        typer.echo(f"written: {path}", err=True)


@app.command(epilog="Example: `cifarzoo calibrate runs/mine`")
def calibrate(
    context: typer.Context,
    weights: Weights,
    root: Root = None,
    download: Download = True,
    tta: Views = "none",
    device: Device = "auto",
    precision: PrecisionName = "auto",
    as_json: AsJson = False,
) -> None:
    """Make the confidence of a model fit its accuracy.

    One number is fitted, the temperature, which divides the logits. The images for it are those
    that were held out from training (`train --val-size`).
    """
    opened = open_weights(weights)
    network, facts = opened.network, opened.facts
    if facts.get("val_size") == 0:
        raise ArgumentError(
            f"{weights} was trained on all training images, and a temperature that is fitted on "
            "those is too low; train with the same recipe and --val-size 5000, and use the "
            "temperature of that run"
        )
    if not (facts.get("val_size") and "data" in facts and "data_sha256" in facts):
        raise ArgumentError(
            f"{weights} does not say which images were held out from its training, and only those "
            "can be used to fit a temperature; train with --val-size 5000"
        )
    train_set, held_out = load_set(facts["data"], "train", root, download).split(facts["val_size"])
    if train_set.sha256() != facts["data_sha256"]:
        raise DataError(
            f"the images found here differ from those that {weights} was trained on; if others "
            "lie there now, name the folder of the original ones with --root; if a program split "
            "them with a seed of its own, calibrate in that program"
        )
    found = cifarzoo.calibrate(network, held_out, tta=tta, device=device, precision=precision)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    (loss, cooled_loss), (error, cooled_error) = found.loss, found.expected_calibration_error
    views = () if tta == "none" else ("--tta", tta)
    temperature = f"{found.temperature:.4f}"
    words = ("evaluate", weights, *views, "--temperature", temperature)
    command = command_again(context, *words)
    typer.echo(
        f"temperature {temperature}, fitted on {found.num_images:,} held-out images\n"
        f"loss: {loss:.4f} before, {cooled_loss:.4f} after\n"
        f"calibration error: {error:.4f} before, {cooled_error:.4f} after\n"
        f"use it: {command}"
    )


@app.command(
    epilog="Examples: `cifarzoo report runs/mine`, `cifarzoo report runs/* -o compared.html`"
)
def report(
    context: typer.Context,
    weights: Annotated[
        list[str], typer.Argument(help="Weights files, run folders, or pretrained models.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file to write the page to.", **A_PATH)
    ] = Path("report.html"),
    views: Annotated[
        Literal["none", "flip", "flip_shift"],
        typer.Option(
            help="Views of each image for a second accuracy, which averages over them: two (flip) "
            "or six (flip_shift), which take three times as long."
        ),
    ] = "flip",
    robustness: Annotated[
        bool,
        typer.Option(
            help="Measure the accuracy on corrupted images too, such as blurred and noisy ones; "
            "this takes 75 more passes over the test images."
        ),
    ] = False,
    cifar10_c: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the official CIFAR-10-C files; corrupted images are taken from it.",
            **A_PATH,
        ),
    ] = None,
    data: TestData = "cifar10",
    root: Root = None,
    download: Download = True,
    device: Device = "auto",
    precision: PrecisionName = "auto",
) -> None:
    """Evaluate one or more models, and write one HTML page about them."""
    from cifarzoo.evaluation import write_page

    if output.suffix.lower() not in (".html", ".htm"):
        raise ArgumentError(f"--output must be an .html file; got {output}")
    if not is_given(context, "output") and output.exists() and not _is_page(output):
        raise OutputError(
            f"{output} is there, and is no page of cifarzoo: to replace it, or name another file, "
            "pass -o"
        )
    weights = _leave_out_what_has_no_weights(weights)
    make_directory(output.parent)
    opened = [open_weights(each) for each in weights]
    networks = [each.network for each in opened]
    names = [cifarzoo.get_card(network).name for network in networks]
    chosen = choose_data(context, weights[0], opened[0].facts, data)
    test_set = load_test(networks, chosen, root, download)
    labels = tell_apart(weights, names, [each.tag for each in opened])
    entries = [
        _measure(
            one,
            label,
            test_set,
            views=views,
            robustness=robustness or cifar10_c is not None,
            files=cifar10_c,
            device=device,
            precision=precision,
        )
        for one, label in zip(opened, labels, strict=True)
    ]
    for entry in entries:
        typer.echo(f"{entry.report.model}: {entry.report.accuracy:.2%}")
    typer.echo(f"written: {write_page(output, entries, test_set)}")


def _is_page(path: Path) -> bool:
    """Whether `report` wrote the file, and may replace it."""
    try:
        with path.open("rb") as file:
            return b'name="generator" content="cifarzoo"' in file.read(1000)
    except OSError:
        return False


def _measure(
    opened: Opened,
    label: str,
    images: ImageSet,
    *,
    views: TestTimeAugmentation,
    robustness: bool,
    **options: Any,
) -> PageEntry:
    """What the page shows of one network; a bar tells how far it is."""
    from cifarzoo.evaluation import make_entry
    from cifarzoo.evaluation.page import views_of_entry

    with count_bar(label, views_of_entry(len(images), views, robustness=robustness)) as advance:
        return make_entry(
            opened.network,
            images,
            weights=opened.path,
            label=label,
            views=views,
            robustness=robustness,
            advance=advance,
            **options,
        )


def _leave_out_what_has_no_weights(weights: list[str]) -> list[str]:
    """Those that a report can be about, as of `runs/*`; the others are noted on standard error."""
    from cifarzoo.runs import RunFolder
    from cifarzoo.zoo.locate import SUFFIXES

    problems = {}
    for each in weights:
        path = user_path(each)
        folder = RunFolder(path)
        if path.is_dir() and not folder.weights.is_file():
            if folder.checkpoint.is_file():
                command = command_line("cifarzoo", "train", "--resume", each)
                problems[each] = f"is not finished; `{command}` continues it"
            elif folder.is_run():
                problems[each] = "has no checkpoint yet, or ended before it wrote one"
            else:
                problems[each] = "is not the folder of a run"
        elif path.is_file() and path.suffix not in SUFFIXES and not _is_safetensors(path):
            problems[each] = "is not a weights file"
    found = [each for each in weights if each not in problems]
    if not found:
        reasons = "\n  ".join(f"{each} {reason}" for each, reason in problems.items())
        raise WeightsError(f"there is nothing to report on:\n  {reasons}")
    for each, reason in problems.items():
        typer.secho(f"left out: {each} {reason}", err=True, fg="yellow")
    return found


def _is_safetensors(path: Path) -> bool:
    """Whether a file is one, whatever it is called."""
    try:
        return bool(cifarzoo.read_metadata(path))
    except WeightsError:
        return False
