"""The command that compares models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cifarzoo
from cifarzoo.cli.application import (
    AsJson,
    Device,
    Download,
    Opened,
    PrecisionName,
    Root,
    TestData,
    Views,
    app,
    choose_data,
    load_test,
    open_weights,
    print_json,
    tell_apart,
)
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.files.paths import user_path
from cifarzoo.files.progress import count_bar
from cifarzoo.names import one_line

if TYPE_CHECKING:
    from cifarzoo import Comparison, EvaluationReport

__all__ = ["compare"]


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
    reports = dict(saved)
    if opened:
        test_set = load_test(
            [each.network for each in opened.values()],
            _choose_set(context, opened, data),
            root,
            download,
        )
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


def _choose_set(context: typer.Context, opened: dict[str, Opened], data: str) -> str:
    """What to measure all of them on."""
    name, one = next(iter(opened.items()))
    return choose_data(context, name, one.facts, data)


def _is_report(text: str) -> bool:
    path = user_path(text)
    return path.suffix.lower() == ".json" and not path.is_dir()


def _read_report(text: str) -> EvaluationReport:
    path: Path = user_path(text)
    try:
        return cifarzoo.EvaluationReport.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"cannot read a report from {path}: {error}; `cifarzoo evaluate --save {path.name}` "
            "writes one"
        ) from error


def _describe(
    first: EvaluationReport, others: list[EvaluationReport], found: list[Comparison]
) -> str:
    """A line for each model, and for all but the first how far it is from that."""
    width = max(len(one_line(report.model)) for report in (first, *others))
    lines = [one_line(f"{first.data}, {first.num_images:,} images"), ""]
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
