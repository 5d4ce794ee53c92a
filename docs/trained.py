"""What a model's page says of its pretrained weights: tables, curves, confusion matrix.

Read from the index of the weights, and from benchmarks/results/zoo/MODEL-TAG.json; no weights file
is opened.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from results import counted, duration, spread, svg, table

import cifarzoo
from cifarzoo.evaluation.report.plots import plot_confusion_matrix
from cifarzoo.zoo.about import known_facts, mean_accuracy, trained_on

SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
READABLE = 20  # classes; of more, nobody reads a confusion matrix
DETAILS = Path(__file__).resolve().parents[1] / "benchmarks/results/zoo"


def weights_section(spec: cifarzoo.ModelSpec) -> list[str]:
    """Paragraphs about the pretrained weights; none where there are none."""
    if not spec.weights:
        return []
    rows = []
    for tag, info in spec.weights.items():
        facts = known_facts(info)
        shares = [mean_accuracy(info, tta) for tta in ("none", "flip", "flip_shift")]
        error = facts.get("calibration_error")
        rows.append(
            (
                f"`{tag}`",
                *("" if share is None else f"{share:.2%}" for share in shares),
                "" if error is None else f"{error:.1%}",
                f"`{info.pack or 'cifarzoo'}`",
                f"`{info.sha256[:12]}`",
            )
        )
    is_mixed = any(trained_on(info) == "cifar100" for info in spec.weights.values())
    of_which = " (of CIFAR-100 for tags that begin with `cifar100`)" if is_mixed else ""
    header = "tag,one view,two views,six views,calibration error,package,sha256 starts with"
    parts = [
        "## Pretrained weights",
        f"The table shows the accuracy on the 10,000 test images{of_which}, as the mean over the "
        "{term}`seeds <seed>`. *Two views* averages the answers to each image and to its mirror "
        "image. {term}`Six views` averages over six versions of each image, some of them moved by "
        "a pixel. The {term}`calibration error` says how far the network's confidence lies from "
        "its accuracy, on average. `create_model` takes the *tag* as `pretrained=`.",
        table(tuple(header.split(",")), rows, numbers=(1, 2, 3, 4)),
    ]
    for tag, info in spec.weights.items():
        if "seed_of" not in info.facts and info.facts.get("seeds"):
            parts += _training(spec, tag, info.facts)
    return parts


def pictures(spec: cifarzoo.ModelSpec) -> dict[str, str]:
    """Curves and confusion matrix of each set of weights, as SVG by file name."""
    drawn = {}
    for tag in spec.weights:
        if details := _details(spec.name, tag):
            drawn[f"{spec.name}-{tag}-curves.svg"] = svg(_curves(details))
            if len(details["classes"]) <= READABLE:
                confusion = plot_confusion_matrix(details["confusion"], details["classes"])
                drawn[f"{spec.name}-{tag}-confusion.svg"] = svg(confusion)
    return drawn


def _details(name: str, tag: str) -> dict[str, Any]:
    """What was kept of a training for its pictures; empty where nothing was."""
    file = DETAILS / f"{name}-{tag}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _training(spec: cifarzoo.ModelSpec, tag: str, facts: Mapping[str, Any]) -> list[str]:
    """How weights were trained: a row for each seed, the command, the pictures."""
    rows = []
    for seed in facts["seeds"]:
        machine = seed["machine"]
        precision = "bfloat16" if machine["bfloat16"] else "float32"
        rows.append(
            (
                str(seed["seed"]),
                *(f"{seed['test_accuracy'][tta]:.2%}" for tta in ("none", "flip_shift")),
                duration(seed["train_seconds"]),
                f"{machine['processor']}, {counted(machine['threads'], 'thread')}, {precision}",
            )
        )
    header = "seed,one view,six views,time,machine"
    recipe = facts["recipe"]
    named = "" if recipe == "default" else f" --recipe {recipe}"
    data = facts.get("data", "cifar10")
    if data != "cifar10":
        named += f" --data {data}"
    command = f"cifarzoo train {spec.name}{named} --val-size {facts['val_size']} --seed 0"
    shares = spread([seed["test_accuracy"]["none"] for seed in facts["seeds"]])
    parts = [
        f"### How `{tag}` was trained",
        f"The training took {spec.get_recipe(recipe).epochs} epochs on "
        f"{50_000 - facts['val_size']:,} images of {SETS.get(data, data)}. After the last epoch, "
        f"the accuracy on the test images was {shares} % in one view.",
        table(tuple(header.split(",")), rows, numbers=(0, 1, 2)),
        "This command trains the network again:",
        f"```console\n$ {command}\n```",
    ]
    if details := _details(spec.name, tag):
        curves = f"Loss and accuracy of {spec.name} after every epoch"
        parts.append(f"![{curves}]({spec.name}-{tag}-curves.svg)")
        if len(details["classes"]) <= READABLE:
            parts.append(f"![Confusion matrix of {spec.name}]({spec.name}-{tag}-confusion.svg)")
    return parts


def _curves(details: Mapping[str, Any]) -> plt.Figure:
    """Loss above accuracy, narrow enough for a phone."""
    figure, (loss, accuracy) = plt.subplots(
        2, figsize=(5.2, 5.2), sharex=True, layout="constrained"
    )
    for axes, kind, factor in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for part, label in (("train", "training images"), ("val", "held-out images")):
            values = details[f"{part}_{kind}"]
            if any(value is not None for value in values):
                scaled = [float("nan") if value is None else factor * value for value in values]
                axes.plot(range(1, len(values) + 1), scaled, label=label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    loss.set_ylabel("loss")
    accuracy.set_ylabel("accuracy, %")
    accuracy.set_xlabel("epoch")
    return figure
