"""The command that compares models."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, cast

import typer

import cifarzoo
from cifarzoo.cli.application import (
    AsJson,
    Device,
    Download,
    PrecisionName,
    Root,
    TestData,
    Views,
    app,
    choose_data,
    given_options,
    is_given,
    load_test,
    open_weights,
    print_json,
    tell_apart,
)
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.files.paths import user_path
from cifarzoo.files.progress import count_bar
from cifarzoo.names import one_line
from cifarzoo.plain import parse_json

if TYPE_CHECKING:
    from cifarzoo import Comparison, EvaluationReport

__all__ = ["compare"]

_UNNAMED = "batches"  # what `evaluate` calls images that are no ImageSet


@app.command(
    epilog="Examples: `cifarzoo compare resnet20 simple`, "
    "`cifarzoo compare runs/first runs/second runs/third`, "
    "`cifarzoo compare first.json second.json`, as `evaluate --save first.json` wrote them"
)
def compare(
    context: typer.Context,
    weights: Annotated[
        list[str],
        typer.Argument(
            help="Two or more weights files, run folders, pretrained models or .json reports."
        ),
    ],
    data: TestData = "cifar10",
    root: Root = None,
    download: Download = True,
    tta: Views = "none",
    device: Device = "auto",
    precision: PrecisionName = "auto",
    as_json: AsJson = False,
) -> None:
    """Say which model is better on the same images.

    Every model is compared with the first one. The output says how certain each difference is.
    Beside saved reports, models are measured with the views of the reports.
    """
    from cifarzoo.evaluation.views import count_views

    if len(weights) < 2:
        raise ArgumentError("name two or more models to compare")
    saved = {each: _read_report(each) for each in weights if _is_report(each)}
    opened = {each: open_weights(each) for each in weights if each not in saved}
    names = [
        saved[each].model if each in saved else cifarzoo.get_card(opened[each].network).name
        for each in weights
    ]
    tags = [opened[each].tag if each in opened else "" for each in weights]
    labels = tell_apart(weights, names, tags)
    if not opened:
        _check_saved(context, saved)
    reports = dict(saved)
    if opened:
        name, one = next(iter(opened.items()))
        if saved and not is_given(context, "tta"):
            tta = cast("Views", next(iter(saved.values())).tta)
        test_set = load_test(
            [each.network for each in opened.values()],
            choose_data(context, name, one.facts, data),
            root,
            download,
        )
        pixels = test_set.sha256(with_labels=False) if saved else ""
        _check_alike(saved, name, test_set.name, tta, pixels)
        for each, one in opened.items():
            with count_bar(each, count_views([tta], len(test_set))) as advance:
                reports[each] = cifarzoo.evaluate(
                    one.network,
                    test_set,
                    tta=tta,
                    device=device,
                    precision=precision,
                    advance=advance,
                )
    first, *others = (
        dataclasses.replace(reports[each], model=label)
        for each, label in zip(weights, labels, strict=True)
    )
    found = [cifarzoo.compare(first, other) for other in others]
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
    else:
        typer.echo(_describe(first, others, found))


def _check_saved(context: typer.Context, saved: dict[str, EvaluationReport]) -> None:
    """Raise when saved reports alone are not alike, or options ask for what they are not of."""
    if given := given_options(context, but={"weights", "as_json"}):
        raise ArgumentError(
            f"saved reports are compared as they are; leave out {', '.join(given)}, or name the "
            "models instead of their reports"
        )
    name, report = next(iter(saved.items()))
    _check_alike(saved, name, report.data, report.tta, report.pixels_sha256)


def _check_alike(
    saved: dict[str, EvaluationReport], other: str, data: str, tta: str, pixels: str
) -> None:
    """Raise when one of ``saved`` is of other images or views than ``other`` is."""
    for name, report in saved.items():
        if report.tta != tta:
            raise InputError(
                f"{name} was measured with --tta {report.tta}, and {other} with --tta {tta}, so "
                "the difference would not be that of the models; measure all with the same views, "
                f"as by `cifarzoo evaluate MODEL --tta {tta} --save report.json`"
            )
        if report.data != data and _UNNAMED not in (report.data, data):
            raise InputError(
                f"{name} was measured on {report.data!r}, and {other} on {data!r}; measure all on "
                "the same images, as by `cifarzoo evaluate MODEL --data NAME --save report.json`"
            )
        if report.has_other_pixels(pixels):
            raise InputError(
                f"{name} and {other} were measured on sets called {data!r} whose images differ; "
                "measure all on the same images"
            )


def _is_report(text: str) -> bool:
    path = user_path(text)
    return path.suffix.lower() == ".json" and not path.is_dir()


def _read_report(text: str) -> EvaluationReport:
    path = user_path(text)
    try:
        return cifarzoo.EvaluationReport.from_dict(parse_json(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"cannot read a report from {path}: {error}; `cifarzoo evaluate MODEL --save "
            "report.json` writes one"
        ) from error


def _describe(
    first: EvaluationReport, others: list[EvaluationReport], found: list[Comparison]
) -> str:
    """A line for each model, and for all but the first how far it is from that."""
    width = max(len(one_line(report.model)) for report in (first, *others))
    about = f"{first.data}, {first.num_images:,} images, test-time augmentation: {first.tta}"
    lines = [one_line(about), ""]
    lines += [
        f"{one_line(report.model):<{width}}  {report.accuracy:7.2%}  95 % interval "
        f"{report.accuracy_interval[0]:.2%} to {report.accuracy_interval[1]:.2%}"
        for report in (first, *others)
    ]
    for each in found:
        low, high = (100 * end for end in each.difference_interval)
        ours, theirs = map(one_line, each.names)
        lines += [
            "",
            f"{ours} minus {theirs}: {100 * each.difference:+.2f} points",
            f"  95 % interval {low:+.2f} to {high:+.2f}, McNemar's p-value {each.p_value:.2g}",
            f"  only the first is right on {each.only_first:,} images, only the second on "
            f"{each.only_second:,}",
            f"  {one_line(each.verdict)}",
        ]
    return "\n".join(lines)
