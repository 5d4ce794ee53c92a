"""The tables and the picture of the notebook about 94 %, made from research/results."""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from picture import FRONTIER, GREY, OURS, Point, frontier, published
from results import counted, duration, spread, svg, table

import cifarzoo

sys.path.append(str(Path(__file__).resolve().parents[1] / "research"))
from trials import training_flops


def to_94_table(measured: Path) -> str:
    """The runs of research/to_94.py, on the test images: a row for each recipe and machine."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in json.loads(measured.read_text(encoding="utf-8")):
        machine = run["machine"]
        place = f"{machine['processor']}, {counted(machine['threads'], 'thread')}"
        if machine["device"] != "cpu":
            place = machine["device"]
        precision = "bfloat16" if machine["bfloat16"] else "float32"
        groups.setdefault((place, precision, run["name"]), []).append(run)
    rows = []
    for (place, precision, name), runs in groups.items():
        seconds = [run["seconds"] for run in runs]
        ratios = [
            _median_ratio(runs, groups.get((place, precision, base), []))
            for base in ("plain", "reference")
        ]
        rows.append(
            (
                place,
                precision,
                f"`{name}`",
                str(runs[0]["recipe"]["epochs"]),
                str(len(runs)),
                spread([run["accuracy"] for run in runs]),
                spread([run["accuracy_with_tta"] for run in runs]),
                duration(statistics.mean(seconds)),
                f"{runs[0]['training_flops'] / 1e15:.2f}",
                *ratios,
            )
        )
    header = "machine,precision,training,epochs,seeds,one view,six views,time,PFLOP"
    header += ",time / plain,time / reference"
    return table(tuple(header.split(",")), rows, numbers=(3, 4, 5, 6, 7, 8, 9, 10)) + "\n"


def airbench_table(log: Path) -> str:
    """What the networks of airbench reach in the zoo, beside what is published of them."""
    lines = log.read_text(encoding="utf-8").splitlines()
    runs = [run for run in map(json.loads, lines) if "test_accuracy" in run]
    figures = [figure for figure in published() if "pflop" in figure]
    rows = []
    for figure in figures:
        name, stated = str(figure["model"]), (f"{figure['accuracy']}", f"{figure['pflop']}")
        rows.append((f"`{name}`", "published", "", "", *stated))
        found = [run for run in runs if run["entry"] == name]
        if not found:
            continue
        recipe = cifarzoo.get_model_info(name).get_recipe(found[0]["recipe"])
        recipe = recipe.replace(**found[0]["changes"])
        one, six = ([run["test_accuracy"][v] for run in found] for v in ("none", "flip_shift"))
        about = f"here, {counted(len(found), 'seed')}", f"{recipe.epochs}"
        work = training_flops(name, recipe, 50_000) / 1e15
        rows.append((f"`{name}`", *about, spread(one), spread(six), f"{work:.2f}"))
    header = ("network", "training", "epochs", "one view", "six views", "PFLOP")
    return table(header, rows, numbers=(2, 3, 4, 5)) + "\n"


def _median_ratio(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    """Of the times of ``runs`` and those of the same seeds of ``base``."""
    seconds = {run["seed"]: run["seconds"] for run in base}
    ratios = [run["seconds"] / seconds[run["seed"]] for run in runs if run["seed"] in seconds]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def tune_94_table(measured: Path) -> str:
    """The trials of research/tune_94.py or fewer_94.py, from the JSON they wrote."""
    rows = []
    for run in json.loads(measured.read_text(encoding="utf-8")):
        recipe = run["recipe"]
        sizes = ", ".join(f"{size} from {start:g}" for start, size in recipe["image_sizes"])
        shown = [f"{100 * run['accuracy'][tta]:.2f}" for tta in ("none", "flip_shift")]
        settings = [str(recipe[key]) for key in ("epochs", "batch_size", "learning_rate")]
        work = f"{run['training_flops'] / 1e15:.3f}"
        losses = [
            f"{run['loss'][tta]:.4f}" if tta in run["loss"] else ""
            for tta in ("none", "flip_shift")
        ]
        rows.append(
            (run["name"], str(run["seed"]), *settings, sizes or "32", work, *shown, *losses)
        )
    header = "trial,seed,epochs,batch size,learning rate,image sizes,PFLOP,one view,six views"
    header += ",loss (one view),loss (six views)"
    return table(tuple(header.split(",")), rows, numbers=(1, 2, 3, 4, 6, 7, 8, 9, 10)) + "\n"


def plot_trials(tuned: Path, fewer: Path) -> str:
    """Accuracy in six views against arithmetic, a point for each trial, as wide as a phone."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in (tuned, fewer)]
    recipes, networks = map(_means, runs)
    fast94 = cifarzoo.get_model_info("airbench94").get_recipe("fast94")
    chosen = {
        run["name"]
        for run in runs[0]  # the others' recipes name an optimizer that only their program knows
        if cifarzoo.Recipe.from_dict(run["recipe"]).replace(seed=fast94.seed) == fast94
    }
    figure, axes = plt.subplots(figsize=(4.9, 5.4), layout="constrained")
    best = frontier([*recipes, *networks])
    axes.step(
        [p.cost for p in best],
        [p.accuracy for p in best],
        where="post",
        color=FRONTIER,
        linewidth=5,
        zorder=1,
        label="best at this cost",
    )
    groups = (
        ("another recipe for airbench94", recipes, GREY, "o"),
        ("another network", networks, OURS, "D"),
        ("fast94", [p for p in (*recipes, *networks) if p.label in chosen], "black", "o"),
    )
    for label, points, color, marker in groups:
        axes.scatter(
            [p.cost for p in points],
            [p.accuracy for p in points],
            color=color,
            marker=marker,
            s=28,
            zorder=3 if color != GREY else 2,
            label=label,
        )
    axes.set_xlabel("PFLOP on 40,000 images")
    axes.set_ylabel("validation accuracy in %, six views")
    axes.grid(color="#eceff3")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return svg(figure)


def _means(runs: Iterable[dict[str, Any]]) -> list[Point]:
    """A point for each trial: the mean over its seeds, in six views."""
    trials: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        trials.setdefault(run["name"], []).append(run)
    return [
        Point(
            name,
            found[0]["training_flops"] / 1e15,
            100 * statistics.mean(run["accuracy"]["flip_shift"] for run in found),
        )
        for name, found in trials.items()
    ]
