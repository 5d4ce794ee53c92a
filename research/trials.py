"""What the programs that try recipes share: one run, its arithmetic, the file of all runs."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from machine import check_names

import cifarzoo
from cifarzoo import History, ImageSet, Recipe
from cifarzoo.evaluation import evaluate_views
from cifarzoo.files.writing import cache_directory, digest, write_text
from cifarzoo.training.checkpoint import CHECKPOINT_NAME
from cifarzoo.zoo.weights import WEIGHTS_NAME

__all__ = ["check_names", "run_if_missing", "training_flops"]


def run_if_missing(
    name: str, model: str, recipe: Recipe, *, held_out: int, views: tuple[str, ...], output: Path
) -> None:
    """Train on the training images but ``held_out``, measure on those, save.

    A run that ``output`` holds already is not made again, and one that was interrupted goes on. The
    test images are not read.
    """
    made = (r for r in _read(output) if r["model"] == model)
    if any(Recipe.from_dict(r["recipe"]) == recipe for r in made):
        return
    train, rest = cifarzoo.load_cifar10("train", download=False).split(held_out)
    network = cifarzoo.create_model(model, seed=recipe.seed, **recipe.model_options)
    teacher = _taught_on(train, recipe.teacher) if recipe.teacher else None
    folder = _folder(model, recipe, len(train))
    history = _train(network, recipe, train, folder, teacher)
    reports = {report.tta: report for report in evaluate_views(network, rest, views)}
    found: dict[str, Any] = {
        "name": name,
        "model": model,
        "seed": recipe.seed,
        "accuracy": {tta: report.accuracy for tta, report in reports.items()},
        "loss": {tta: report.loss for tta, report in reports.items()},
        "train_loss": history[-1].train_loss,
        "train_accuracy": history[-1].train_accuracy,
        "seconds": history.seconds,
        "training_flops": training_flops(model, recipe, len(train)),
    }
    print(json.dumps(found))
    runs = [*_read(output), {**found, "recipe": recipe.to_dict()}]  # others may have saved theirs
    write_text(output, json.dumps(runs, indent=1) + "\n")
    shutil.rmtree(folder)


def _taught_on(images: ImageSet, model: str) -> nn.Module:
    """A teacher that knows ``images`` alone: a pretrained one has seen those that are held out."""
    recipe = cifarzoo.get_model_info(model).get_recipe("default")
    folder = _folder(f"teacher {model}", recipe, len(images))
    if not (folder / WEIGHTS_NAME).exists():
        network = cifarzoo.create_model(model, seed=recipe.seed, **recipe.model_options)
        _train(network, recipe, images, folder)
    return cifarzoo.load_model(folder / WEIGHTS_NAME)


def _folder(what: str, recipe: Recipe, images: int) -> Path:
    """Where a run is kept until it has ended; a teacher stays there."""
    asked = json.dumps([what, images, recipe.to_dict()], sort_keys=True)
    return cache_directory() / "trials" / digest(asked.encode())[:20]


def _train(
    network: nn.Module,
    recipe: Recipe,
    images: ImageSet,
    folder: Path,
    teacher: nn.Module | None = None,
) -> History:
    """Train, or go on with a run that was interrupted."""
    loggers = [cifarzoo.ConsoleLogger()]
    trainer = cifarzoo.Trainer(network, recipe, loggers=loggers, teacher=teacher, output=folder)
    return trainer.fit(images, resume=(folder / CHECKPOINT_NAME).exists())


def _read(output: Path) -> list[dict[str, Any]]:
    """The runs that were saved so far."""
    return json.loads(output.read_text(encoding="utf-8")) if output.exists() else []


def training_flops(name: str, recipe: Recipe, num_images: int) -> float:
    """Floating-point operations of a run: 2 a MAC, forward and twice that backward."""
    model = cifarzoo.create_model(name, **recipe.model_options)
    changes = [*recipe.image_sizes, [1.0, 0]] if recipe.image_sizes else [[0, 32], [1.0, 0]]
    macs = 0.0
    for (start, size), (end, _) in itertools.pairwise(changes):
        macs += (end - start) * cifarzoo.summary(model, image_size=int(size)).total_mult_adds
    seen = recipe.epochs * (num_images // recipe.batch_size) * recipe.batch_size
    return 2 * 3 * macs * seen
