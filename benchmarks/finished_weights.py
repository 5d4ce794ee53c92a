"""Trained weights of the zoo: rounded, measured, kept, and moved into the package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import cifarzoo
from cifarzoo import ImageSet, Recipe, load_model, read_metadata, save_weights
from cifarzoo.errors import InputError
from cifarzoo.evaluation import evaluate_views
from cifarzoo.files.writing import file_digest, write_text
from cifarzoo.zoo.locate import FOLDER
from cifarzoo.zoo.weights import WEIGHTS_NAME

__all__ = ["keep", "ship"]


def keep(folder: Path, place: Path, commits: list[str]) -> dict[str, Any]:
    """Round the weights of a run to float16, measure them, and write them with all metadata.

    Args:
        folder: Of the run.
        place: The file.
        commits: What the code was of that trained.

    Returns:
        What the log tells of them.
    """
    metadata = read_metadata(folder / WEIGHTS_NAME)["metadata"]
    network = load_model(folder / WEIGHTS_NAME)
    is_sample = metadata["data"] == "sample"
    sample = cifarzoo.load_sample("test")
    test = sample if is_sample else cifarzoo.load_cifar10("test", download=False)
    unrounded = cifarzoo.evaluate(network, test, precision="float32").accuracy
    for parameter in network.parameters():
        parameter.data = parameter.half().float()  # as they ship
    measured = {
        "test_accuracy": accuracies(network, test),
        "unrounded_test_accuracy": {"none": unrounded},
    }
    seed = {
        "seed": metadata["recipe"]["seed"],
        **measured,
        **{key: metadata[key] for key in ("validation_accuracy", "train_seconds", "machine")},
    }
    metadata |= measured | {
        "sample_accuracy": accuracies(network, sample),
        "commits": commits,
        "seeds": [seed],
    }
    save_weights(network, place, metadata=metadata, dtype=torch.float16)
    return {**measured, "file": place.name, "sha256": file_digest(place)}


def ship(lines: Sequence[Mapping[str, Any]], results: Path) -> str:
    """Move the weights of seed 0 into the package, with the figures of all seeds in the index.

    Args:
        lines: Those of the log that tell of one entry.
        results: Folder of the finished weights.

    Returns:
        What was done.

    Raises:
        InputError: Seed 0 is not among them, or the model has no such recipe.
    """
    final = {line["seed"]: line for line in lines if "file" in line}
    if 0 not in final:
        raise InputError("the entry has no finished final run of seed 0; see --state")
    model, tag, file = (final[0][key] for key in ("model", "recipe", "file"))
    facts = {
        seed: read_metadata(results / line["file"])["metadata"]
        for seed, line in sorted(final.items())
    }
    if Recipe.from_dict(facts[0]["recipe"]) != cifarzoo.get_model_info(model).get_recipe(tag):
        raise InputError(f"make the recipe of the entry the recipe {tag!r} of {model!r} first")
    place = FOLDER / f"{model}-{tag}.safetensors"
    (results / file).replace(place)  # byte for byte: a repository keeps both or one
    index_path = FOLDER / "index.json"
    index: dict[str, Any] = json.loads(index_path.read_text(encoding="utf-8"))
    index.setdefault(model, {})[tag] = {
        "file": place.name,
        "sha256": final[0]["sha256"],
        "seeds": [seed for each in facts.values() for seed in each["seeds"]],
    }
    write_text(index_path, json.dumps(index, indent=1, sort_keys=True) + "\n")
    accuracy = final[0]["test_accuracy"]["none"]
    return f"{place.name}: {accuracy:.2%}, {len(facts)} seeds in the index"


def accuracies(network: torch.nn.Module, images: ImageSet) -> dict[str, float]:
    """Accuracy with each kind of test-time augmentation.

    In float32 on every machine: rounding to bfloat16 moves as many images as that of the weights.
    """
    reports = evaluate_views(network, images, ("none", "flip", "flip_shift"), precision="float32")
    return {report.tta: report.accuracy for report in reports}
