"""Train the weights that come with the package, and put the chosen seed in its place.

Usage: python benchmarks/zoo.py MODEL [--recipe default] [--seeds 3] [--runs runs/zoo]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Each seed is a run of ``cifarzoo train`` with
5,000 training images held out; one that was stopped is continued. When a run ends, the shipped file
learns of it: the list of seeds in its metadata grows, and the run takes the file's place if its
validation accuracy is the best so far. Test accuracies are only written down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import cifarzoo
from cifarzoo import ImageSet, Recipe, load_model, read_metadata, save_weights
from cifarzoo.evaluation import evaluate_views
from cifarzoo.files import file_digest, write_text
from cifarzoo.pretrained import FOLDER
from cifarzoo.run_folder import read_claim
from cifarzoo.weights import WEIGHTS_NAME

HELD_OUT = 5_000
VIEWS = ("none", "flip", "flip_shift")


def main() -> None:
    """Train what is missing, ship what is best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--recipe", default="default", help="also the tag of the weights")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"))
    arguments = parser.parse_args()
    model, tag = arguments.model, arguments.recipe
    recipe = cifarzoo.get_model_info(model).get_recipe(tag)
    place = FOLDER / f"{model}-{tag}.safetensors"
    for seed in range(arguments.seeds):
        if seed in {entry["seed"] for entry in known_seeds(place, recipe)}:
            continue
        folder = arguments.runs / f"{model}-{tag}-{seed}"
        train(model, tag, recipe.replace(seed=seed), folder)
        ship(model, tag, folder, place)


def train(model: str, tag: str, recipe: Recipe, folder: Path) -> None:
    """Run ``cifarzoo train`` to its end, from where it stopped."""
    is_begun = (folder / "checkpoint.pt").exists()
    if is_begun and read_claim(folder)[1] != recipe:
        sys.exit(f"{folder} was started with another recipe; move it away")
    if (folder / WEIGHTS_NAME).exists():
        return
    command = [sys.executable, "-m", "cifarzoo", "train"]
    if is_begun:
        command += ["--resume", str(folder)]
    else:
        command += [model, "--recipe", tag, "--seed", str(recipe.seed)]
        command += ["--val-size", str(HELD_OUT), "--output", str(folder)]
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):  # meant for the run, which saves itself
                process.wait()
    if process.returncode:
        sys.exit(process.returncode)  # it has said why


def ship(model: str, tag: str, folder: Path, place: Path) -> None:
    """Put a finished run in the place of the shipped weights, or among their seeds."""
    metadata = read_metadata(folder / WEIGHTS_NAME)["metadata"]
    network = load_model(folder / WEIGHTS_NAME)
    train_set, test = (cifarzoo.load_cifar10(part, download=False) for part in ("train", "test"))
    unrounded = cifarzoo.evaluate(network, test, precision="float32").accuracy
    for parameter in network.parameters():
        parameter.data = parameter.half().float()  # as they ship
    entry = {
        "seed": metadata["recipe"]["seed"],
        "validation_accuracy": accuracies(network, train_set.split(HELD_OUT)[1]),
        "test_accuracy": accuracies(network, test),
        "unrounded_test_accuracy": {"none": unrounded},
        "train_seconds": metadata["train_seconds"],
        "machine": metadata["machine"],
    }
    seeds = [*known_seeds(place, Recipe.from_dict(metadata["recipe"])), entry]
    best = max(seeds, key=lambda each: each["validation_accuracy"]["none"])
    if best is entry:
        metadata |= {key: entry[key] for key in ("validation_accuracy", "test_accuracy")}
        metadata["sample_accuracy"] = accuracies(network, cifarzoo.load_sample("test"))
    else:
        network, metadata = load_model(place), read_metadata(place)["metadata"]
    metadata["seeds"] = seeds
    save_weights(network, place, metadata=metadata, dtype=torch.float16)
    index_path = FOLDER / "index.json"
    index = json.loads(index_path.read_text(encoding="utf-8"))
    index.setdefault(model, {})[tag] = {"file": place.name, "sha256": file_digest(place)}
    write_text(index_path, json.dumps(index, indent=1, sort_keys=True) + "\n")
    found = entry["test_accuracy"]
    print(
        f"{model} {tag} seed {entry['seed']}: validation "
        f"{entry['validation_accuracy']['none']:.2%}, test {found['none']:.2%}, "
        f"{found['flip_shift']:.2%} with six views; seed {best['seed']} of {len(seeds)} ships"
    )


def known_seeds(place: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The seeds that the shipped file tells of, if it was trained by this recipe."""
    if not place.exists():
        return []
    metadata = read_metadata(place)["metadata"]
    if Recipe.from_dict(metadata["recipe"]).replace(seed=0) != recipe.replace(seed=0):
        return []
    seeds: list[dict[str, Any]] = metadata["seeds"]
    return seeds


def accuracies(network: torch.nn.Module, images: ImageSet) -> dict[str, float]:
    """Accuracy with each kind of test-time augmentation.

    In float32 on every machine: rounding to bfloat16 moves as many images as that of the weights.
    """
    reports = evaluate_views(network, images, VIEWS, precision="float32")
    return {report.tta: report.accuracy for report in reports}


if __name__ == "__main__":
    main()
