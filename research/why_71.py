"""Why did the report's ResNet-18 stay at 71 %? One change at a time, from its training and ours.

The report is "Convolutional NN for CIFAR10 image classification (PyTorch)".

Usage: python research/why_71.py [--only NAME ...] [--output FILE]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Every run trains on 45,000 of the training
images, or the stated share of them, and is measured after every epoch on the 5,000 others; the
test images are not read. A run that is in the file already is not made again, and one that is only
the beginning of such a run is read from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from machine import check_names, describe_machine

import cifarzoo
from cifarzoo import Augmentation, Recipe
from cifarzoo.files.writing import write_text
from cifarzoo.zoo.known import read_recipe

ORIGINAL = read_recipe("original")
RESULTS = Path(__file__).parent / "results" / "why_71.json"
HELD_OUT = 5_000

# the default recipe of the ResNets in the report's eight epochs, which want larger steps and do not
# overfit: no cutout
TUNED = (
    cifarzoo.get_model_info("resnet18_cifar")
    .recipe.replace(epochs=8, learning_rate=0.15)
    .override("augmentation.cutout", 0)
)
# of the images: the budget of runs with the CIFAR stem, which takes fifteen times the arithmetic
QUARTER = 1 / 4


@dataclasses.dataclass(frozen=True)
class Trial:
    """A network, its training, the share of the training images it sees, what it is compared to."""

    model: str
    recipe: Recipe
    share: float = 1.0
    base: str = "original"


def scheduled_like(recipe: Recipe, other: Recipe) -> Recipe:
    """The schedule, rate and optimizer of ``other``: none means anything without the others."""
    return recipe.replace(
        scheduler=other.scheduler,
        scheduler_options=other.scheduler_options,
        optimizer=other.optimizer,
        learning_rate=other.learning_rate,
        momentum=other.momentum,
        weight_decay=other.weight_decay,
        batch_size=other.batch_size,
    )


def small(
    recipe: Recipe, base: str, *, model: str = "resnet18_cifar", share: float = QUARTER
) -> Trial:
    """A run within the budget of the CIFAR stem."""
    return Trial(model, recipe, share, base)


LATE = ORIGINAL.replace(scheduler_options={"milestones": [8], "gamma": 0.1})  # never, in 8 epochs
SMALL_ORIGINAL, SMALL_TUNED = "original, 1/4 of the images", "tuned, 1/4 of the images"

TRIALS = {
    # one change away from the original; the first eight epochs of the longer run are the shorter
    "original, 16 epochs": Trial("resnet18", ORIGINAL.replace(epochs=16)),
    "original": Trial("resnet18", ORIGINAL),
    "original, no drop": Trial("resnet18", LATE),
    "original, tuned optimizer and schedule": Trial("resnet18", scheduled_like(ORIGINAL, TUNED)),
    "original, augmentation": Trial("resnet18", ORIGINAL.replace(augmentation=TUNED.augmentation)),
    # less data: does what is lost say that more would help?
    "original, 1/8 of the images": Trial("resnet18", ORIGINAL, 1 / 8),
    SMALL_ORIGINAL: Trial("resnet18", ORIGINAL, QUARTER),
    "original, 1/2 of the images": Trial("resnet18", ORIGINAL, 1 / 2),
    f"{SMALL_ORIGINAL}, CIFAR stem": small(ORIGINAL, SMALL_ORIGINAL),
    # one change away from the tuned training
    SMALL_TUNED: small(TUNED, SMALL_ORIGINAL),
    f"{SMALL_TUNED}, ImageNet stem": small(TUNED, SMALL_TUNED, model="resnet18"),
    f"{SMALL_TUNED}, 4 epochs": small(TUNED.replace(epochs=4), SMALL_TUNED),
    f"{SMALL_TUNED}, original optimizer and schedule": small(
        scheduled_like(TUNED, ORIGINAL), SMALL_TUNED
    ),
    f"{SMALL_TUNED}, no augmentation": small(
        TUNED.replace(augmentation=Augmentation()), SMALL_TUNED
    ),
    "tuned, 1/8 of the images": small(TUNED, SMALL_TUNED, share=1 / 8),
    # the report's network and images, half of its epochs
    "tuned, ImageNet stem, 4 epochs": Trial("resnet18", TUNED.replace(epochs=4)),
}


def main() -> None:
    """Make the runs that are missing, and save each when it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(TRIALS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    check_names(parser, "--only", arguments.only, TRIALS)
    runs = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in arguments.only:
        trial, found = TRIALS[name], runs.get(name)
        if found and Recipe.from_dict(found["recipe"]) == trial.recipe:
            continue
        print(name)
        runs[name] = {**(beginning(trial, runs) or run(trial)), "base": trial.base}
        runs = {each: runs[each] for each in TRIALS if each in runs}
        write_text(arguments.output, json.dumps(runs, indent=1) + "\n")


def beginning(trial: Trial, runs: dict[str, Any]) -> dict[str, Any] | None:
    """The first epochs of a longer run that differs in nothing else, where it is in the file."""
    if trial.recipe.scheduler != "multistep" or trial.share < 1:  # others follow the length
        return None
    epochs = trial.recipe.epochs
    for found in runs.values():
        recipe = Recipe.from_dict(found["recipe"])
        same = found["model"] == trial.model and recipe.replace(epochs=epochs) == trial.recipe
        if same and recipe.epochs > epochs:
            history = found["history"][:epochs]
            seconds = sum(record["seconds"] for record in history)
            recipe_data = trial.recipe.to_dict()
            return {**found, "recipe": recipe_data, "seconds": seconds, "history": history}
    return None


def run(trial: Trial) -> dict[str, Any]:
    """Train on a share of the larger part, measure on the smaller one after every epoch."""
    train, held_out = cifarzoo.load_cifar10("train", download=False).split(HELD_OUT)
    if trial.share < 1:
        train = train.split(round(trial.share * len(train)))[1]
    network = cifarzoo.create_model(trial.model, seed=trial.recipe.seed)
    loggers = [cifarzoo.ConsoleLogger()]
    history = cifarzoo.Trainer(network, trial.recipe, loggers=loggers).fit(train, held_out)
    return {
        "model": trial.model,
        "images": len(train),
        "recipe": trial.recipe.to_dict(),
        "seconds": history.seconds,
        "machine": describe_machine(),
        "history": history.to_list(),
    }


if __name__ == "__main__":
    main()
