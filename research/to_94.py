"""Time to 94 %: the recipe ``fast94`` beside the published training, in one run.

Usage: python research/to_94.py [--seeds 5] [--contenders plain,reference,fast94] [--output FILE]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Every contender trains ``airbench94`` on all
50,000 training images, in turn for each seed, and is measured after the last epoch on all 10,000
test images, without and with test-time augmentation:

plain       the published training in stock PyTorch, eager, in a process of its own (plain_94.py)
reference   the same training by the Trainer
fast94      the recipe of that name by the Trainer

The wall time is that from a network with random parameters to its accuracy with test-time
augmentation: preparation (the whitening layer, the padded images), training (compiling too, on a
GPU), evaluation. Every run is saved when it ends; a second call does what is missing on the machine
it is made on, and forgets runs of an earlier state of a recipe. Times are compared between runs of
the same seed, which follow each other on one machine; their median ratio is what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from machine import DEVICE, check_names, describe_machine, is_this_machine, synchronize
from rich.console import Console
from rich.table import Table
from trials import training_flops

import cifarzoo
from cifarzoo import ImageSet, Recipe
from cifarzoo.compute.place import Place
from cifarzoo.files.writing import write_text

MODEL = "airbench94"
# the published code takes six views of every image
VIEWS = {"plain": "flip_shift", "reference": "flip_shift", "fast94": "flip_shift_unsure"}
RECIPES = {"plain": "reference", "reference": "reference", "fast94": "fast94"}
RESULTS = Path(__file__).parent / "results" / "to_94.json"
PARTS = ("preparation", "training", "evaluation")


def main() -> None:
    """Train, measure, save, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--contenders", default=",".join(RECIPES), help="comma-separated")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="forget earlier runs")
    arguments = parser.parse_args()
    contenders = arguments.contenders.split(",")
    check_names(parser, "--contenders", contenders, RECIPES)
    spec = cifarzoo.get_model_info(MODEL)
    runs: list[dict[str, Any]] = []
    if arguments.output.exists() and not arguments.again:
        for each in json.loads(arguments.output.read_text(encoding="utf-8")):
            current = spec.get_recipe(RECIPES[each["name"]]).replace(seed=each["seed"])
            if Recipe.from_dict(each["recipe"]) == current:  # not of an earlier state of it
                runs.append(each)
    train, test = (cifarzoo.load_cifar10(part, download=False) for part in ("train", "test"))
    here = [r for r in runs if is_this_machine(r["machine"])]
    for seed in range(arguments.seeds):
        for name in contenders:
            if any((r["name"], r["seed"]) == (name, seed) for r in here):
                continue
            recipe = spec.get_recipe(RECIPES[name]).replace(seed=seed)
            measured = run_plain(seed) if name == "plain" else run(recipe, VIEWS[name], train, test)
            flops = training_flops(MODEL, recipe, len(train))
            made = {
                "name": name,
                "seed": seed,
                "tta": VIEWS[name],
                **measured,
                "training_flops": flops,
                "gflops_per_second": flops / measured["training"] / 1e9,
                "machine": describe_machine(),
                "recipe": recipe.to_dict(),
            }
            runs.append(made)
            here.append(made)
            write_text(arguments.output, json.dumps(runs, indent=1) + "\n")
            show(here)


def run_plain(seed: int) -> dict[str, float]:
    """The published training, in a process that nothing of ours has touched."""
    dtype = Place.find(DEVICE).precision_name
    script = Path(__file__).with_name("plain_94.py")
    command = [sys.executable, str(script), "--seed", str(seed), "--dtype", dtype]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def run(recipe: Recipe, tta: Any, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """Train once and measure; accuracies, and the time with its parts in seconds."""
    model = cifarzoo.create_model(MODEL, seed=recipe.seed, **recipe.model_options)
    start = time.perf_counter()
    loggers = [cifarzoo.ConsoleLogger()]
    history = cifarzoo.Trainer(model, recipe, compile="auto", loggers=loggers).fit(train)
    synchronize()
    trained = time.perf_counter()
    with_views = cifarzoo.evaluate(model, test, tta=tta)
    synchronize()
    end = time.perf_counter()
    return {
        "accuracy": cifarzoo.evaluate(model, test).accuracy,
        "accuracy_with_tta": with_views.accuracy,
        "seconds": end - start,
        "preparation": trained - start - history.seconds,
        "training": history.seconds,
        "evaluation": end - trained,
    }


def show(runs: list[dict[str, Any]]) -> None:
    """Mean and standard deviation over seeds, a row for each recipe."""
    table = Table()
    columns = ("runs", "accuracy", "with TTA", "seconds", *PARTS, "PFLOP", "GFLOP/s")
    table.add_column("")
    for column in (*columns, "time / plain", "time / reference"):
        table.add_column(column, justify="right")
    groups = {r["name"]: [x for x in runs if x["name"] == r["name"]] for r in runs}
    for name, group in groups.items():
        table.add_row(
            name,
            str(len(group)),
            spread([100 * r["accuracy"] for r in group]),
            spread([100 * r["accuracy_with_tta"] for r in group]),
            spread([r["seconds"] for r in group]),
            *(f"{statistics.mean(r[part] for r in group):.1f}" for part in PARTS),
            f"{group[0]['training_flops'] / 1e15:.3f}",
            f"{statistics.mean(r['gflops_per_second'] for r in group):.0f}",
            ratio(group, groups.get("plain", [])),
            ratio(group, groups.get("reference", [])),
        )
    Console(width=170).print(table)  # narrower, numbers would be cut


def ratio(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    """Median of the times over those of ``base``, by seed."""
    seconds = {r["seed"]: r["seconds"] for r in base}
    ratios = [r["seconds"] / seconds[r["seed"]] for r in runs if r["seed"] in seconds]
    return f"{statistics.median(ratios):.3f}x" if ratios else ""


def spread(values: list[float]) -> str:
    """Mean and, for several values, standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    main()
