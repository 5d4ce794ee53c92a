"""Three ways to train on classes of very different size, on a long-tailed CIFAR-10.

Usage: python research/imbalance.py [--seeds N] [--output FILE]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Class k keeps 5000 / 100^(k/9) training images
(Cui et al. 2019, arXiv:1901.05555), so the largest class has 100 times as many as the smallest.
Each way takes about the same number of optimizer steps. The test images are the official ones, with
1,000 of each class, and nothing is chosen by them. docs/howto/imbalance.md explains the ways.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from machine import describe_machine

import cifarzoo
from cifarzoo import ImageSet, Recipe
from cifarzoo.files.writing import write_text

RESULTS = Path(__file__).parent / "results" / "imbalance.json"
MODEL = "simple"
RECIPE = Recipe(epochs=20, batch_size=128, learning_rate=0.05)
RATIO = 100


def long_tailed(full: ImageSet, ratio: float = RATIO) -> ImageSet:
    """The first images of each class, fewer from class to class."""
    classes = len(full.classes)
    chosen = []
    for label in range(classes):
        found = (full.labels == label).nonzero()[:, 0]
        chosen.append(found[: round(len(found) * ratio ** (-label / (classes - 1)))])
    return full.subset(torch.cat(chosen).sort().values)


def recalls(predicted: Tensor, labels: Tensor) -> list[float]:
    """Share of each class's images that is recognized."""
    hits = predicted == labels
    return [float(hits[labels == label].float().mean()) for label in labels.unique()]


def train(images: ImageSet, recipe: Recipe, loss: nn.Module | None = None) -> nn.Module:
    """A new network, trained."""
    model = cifarzoo.create_model(MODEL, seed=recipe.seed)
    cifarzoo.Trainer(model, recipe, loss=loss).fit(images)
    return model


def compare(images: ImageSet, test: ImageSet, seed: int) -> dict[str, list[float]]:
    """The recall of each class on ``test``, for each way."""
    recipe = RECIPE.replace(seed=seed)
    counts = images.labels.bincount()
    weights = counts.sum() / (len(counts) * counts)
    repeats = (counts.max() / counts).round().long()
    repeated = images.subset(torch.arange(len(images)).repeat_interleave(repeats[images.labels]))
    fewer = recipe.replace(epochs=max(1, round(recipe.epochs * len(images) / len(repeated))))
    plain = train(images, recipe)
    found = cifarzoo.probabilities(plain, test)
    answers = {
        "nothing": found,
        "class weights": cifarzoo.probabilities(
            train(images, recipe, nn.CrossEntropyLoss(weight=weights)), test
        ),
        "rare images repeated": cifarzoo.probabilities(train(repeated, fewer), test),
        "answers divided by the shares": found / counts,
    }
    return {way: recalls(answer.argmax(1), test.labels) for way, answer in answers.items()}


def main() -> None:
    """Run each way for each seed, and keep what it reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    images, test = long_tailed(cifarzoo.load_cifar10("train")), cifarzoo.load_cifar10("test")
    counts = images.labels.bincount().tolist()
    setting = {
        "model": MODEL,
        "recipe": RECIPE.to_dict(),
        "counts": dict(zip(images.classes, counts, strict=True)),
    }
    runs: list[dict[str, Any]] = []
    if arguments.output.exists():  # the other seeds, if they are of the same setting
        before = json.loads(arguments.output.read_text(encoding="utf-8"))
        if setting.items() <= before.items():
            runs = before["runs"]
    for seed in sorted({*range(arguments.seeds)} - {run["seed"] for run in runs}):
        began = time.perf_counter()
        found = compare(images, test, seed)
        seconds = round(time.perf_counter() - began, 1)
        runs.append({"seed": seed, "seconds": seconds, "recalls": found})
        print(seed, seconds, {way: sum(each) / len(each) for way, each in found.items()})
        results = {**setting, "machine": describe_machine(), "runs": runs}
        write_text(arguments.output, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
