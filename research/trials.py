"""What the benchmarks that try recipes share: one run, and the file of all runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cifarzoo
from cifarzoo import Recipe
from cifarzoo.evaluation import evaluate_views
from cifarzoo.files.writing import write_text

__all__ = ["run_if_missing"]


def run_if_missing(
    name: str, model: str, recipe: Recipe, *, held_out: int, views: tuple[str, ...], output: Path
) -> None:
    """Train on the larger part of the training images, measure on ``held_out`` others, save.

    A run that ``output`` holds already is not made again. The test images are not read.
    """
    runs = json.loads(output.read_text(encoding="utf-8")) if output.exists() else []
    if any(r["model"] == model and Recipe.from_dict(r["recipe"]) == recipe for r in runs):
        return
    train, rest = cifarzoo.load_cifar10("train", download=False).split(held_out)
    network = cifarzoo.create_model(model, seed=recipe.seed, **recipe.model_options)
    teacher = cifarzoo.create_model(recipe.teacher, pretrained=True) if recipe.teacher else None
    loggers = [cifarzoo.ConsoleLogger()]
    start = time.perf_counter()
    history = cifarzoo.Trainer(network, recipe, loggers=loggers, teacher=teacher).fit(train)
    seconds = time.perf_counter() - start
    reports = {report.tta: report for report in evaluate_views(network, rest, views)}
    found: dict[str, Any] = {
        "name": name,
        "model": model,
        "seed": recipe.seed,
        "accuracy": {tta: report.accuracy for tta, report in reports.items()},
        "loss": {tta: report.loss for tta, report in reports.items()},
        "train_loss": history[-1].train_loss,
        "train_accuracy": history[-1].train_accuracy,
        "seconds": seconds,
    }
    print(json.dumps(found))
    write_text(output, json.dumps([*runs, {**found, "recipe": recipe.to_dict()}], indent=1) + "\n")
