"""Trials of the zoo's recipes, on a validation split of the training images.

Usage: python benchmarks/tune_zoo.py [--only "MODEL: NAME" ...] [--output FILE]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Every trial trains on 45,000 of the training
images and is measured on the 5,000 others after the last epoch; the test images are not read. A
trial that is in the file already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cifarzoo
from cifarzoo import Recipe
from cifarzoo.files import write_text

RESULTS = Path(__file__).parent / "results" / "tune_zoo.json"
HELD_OUT = 5_000

PLAIN = Recipe(epochs=24, batch_size=128, learning_rate=0.05, weight_decay=5e-4)

GENTLE = PLAIN.replace(weight_decay=1e-4, augmentation={"crop_padding": 2})

GROWING = PLAIN.replace(image_sizes=[[0, 16], [0.3, 24], [0.5, 32]])

TRIALS: dict[str, dict[str, Recipe]] = {
    "simple": {
        "24 epochs": PLAIN,
        "less decay, crop padding 2": GENTLE,
        "Muon": PLAIN.replace(optimizer="nmuon", learning_rate=0.02, weight_decay=0.0),
        "less decay, crop padding 2, rate 0.1": GENTLE.replace(learning_rate=0.1),
        "less decay, crop padding 2, batch 64": GENTLE.replace(batch_size=64, learning_rate=0.03),
        "less decay, crop padding 2, 72 epochs": GENTLE.replace(epochs=72),
        "less decay, crop padding 2, teacher": GENTLE.replace(
            teacher="airbench94", distillation_temperature=2.0
        ),
    },
    "deep_bn": {
        "16 epochs, less decay, crop padding 2": GENTLE.replace(epochs=16, learning_rate=0.06),
        "16 epochs, Muon": GENTLE.replace(
            epochs=16, optimizer="nmuon", learning_rate=0.02, weight_decay=0.0
        ),
    },
    "resnet20": {
        "8 epochs, SGD": GROWING.replace(epochs=8, learning_rate=0.2),
        "8 epochs, Muon": GROWING.replace(
            epochs=8,
            batch_size=512,
            optimizer="muon_sgd",
            learning_rate=0.15,
            momentum=0.6,
            scheduler="linear",
            weight_decay=0.0,
        ),
    },
}


def main() -> None:
    """Run the trials that are missing, and save each when it ends."""
    everything = {
        f"{model}: {name}": (model, recipe)
        for model, trials in TRIALS.items()
        for name, recipe in trials.items()
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(everything), metavar="NAME")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runs = json.loads(arguments.output.read_text()) if arguments.output.exists() else []
    for name in arguments.only:
        model, recipe = everything[name]
        if any(r["model"] == model and Recipe.from_dict(r["recipe"]) == recipe for r in runs):
            continue
        runs.append({"name": name.split(": ", 1)[1], "model": model, **trial(model, recipe)})
        write_text(arguments.output, json.dumps(runs, indent=1) + "\n")
        print(json.dumps({key: value for key, value in runs[-1].items() if key != "recipe"}))


def trial(model: str, recipe: Recipe) -> dict[str, Any]:
    """Train on the larger part, measure on the smaller one."""
    train, held_out = cifarzoo.load_cifar10("train", download=False).split(HELD_OUT)
    network = cifarzoo.create_model(model, seed=recipe.seed, **recipe.model_options)
    teacher = cifarzoo.create_model(recipe.teacher, pretrained=True) if recipe.teacher else None
    loggers = [cifarzoo.ConsoleLogger()]
    start = time.perf_counter()
    history = cifarzoo.Trainer(network, recipe, loggers=loggers, teacher=teacher).fit(train)
    seconds = time.perf_counter() - start
    reports = {tta: cifarzoo.evaluate(network, held_out, tta=tta) for tta in ("none", "flip")}
    return {
        "accuracy": {tta: report.accuracy for tta, report in reports.items()},
        "loss": {tta: report.loss for tta, report in reports.items()},
        "train_loss": history[-1].train_loss,
        "train_accuracy": history[-1].train_accuracy,
        "seconds": seconds,
        "recipe": recipe.to_dict(),
    }


if __name__ == "__main__":
    main()
