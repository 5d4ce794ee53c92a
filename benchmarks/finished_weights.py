"""Trained weights of the zoo: rounded, measured, kept, moved into a package, and its index.

The weights of seed 0 go into the package or, where they are large, into a pack; those of the other
seeds into a pack of their own. ``index.json`` of the package tells of all of them.
"""

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
from cifarzoo.zoo.packs import FOLDER, INDEX_NAME
from cifarzoo.zoo.weights import WEIGHTS_NAME

__all__ = [
    "LARGE",
    "SEEDS",
    "describe_file",
    "keep",
    "pack_folder",
    "ship",
    "write_details",
    "write_index",
]

PACKS = Path(__file__).resolve().parents[1] / "packs"
LARGE, SEEDS = "cifarzoo-weights-large", "cifarzoo-weights-seeds"
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
OF_CIFAR10 = ("cifar10", "sample")
# bytes; larger files would soon fill the wheel, which has to stay below 60 MB
LARGE_SIZE, LARGE_SIZE_OF_OTHERS = 8e6, 1e6


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
    test = cifarzoo.load_dataset(metadata["data"], "test", download=False)
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
    metadata |= measured | {"commits": commits, "seeds": [seed]}
    if metadata["data"] in OF_CIFAR10:
        metadata["sample_accuracy"] = accuracies(network, cifarzoo.load_sample("test"))
    save_weights(network, place, metadata=metadata, dtype=torch.float16)
    return {**measured, "file": place.name, "sha256": file_digest(place)}


def ship(lines: Sequence[Mapping[str, Any]], results: Path) -> str:
    """Move the weights of an entry to where users find them, and write the index.

    Args:
        lines: Those of the log that tell of the entry.
        results: Folder of the finished weights.

    Returns:
        What was done.

    Raises:
        InputError: Seed 0 is not among them, or the model has no such recipe.
    """
    final = {line["seed"]: line for line in lines if "file" in line}
    if 0 not in final:
        raise InputError("the entry has no finished final run of seed 0; see --state")
    model, tag = (final[0][key] for key in ("model", "recipe"))
    names = {seed: f"{model}-{tag}" + (f"-{seed}" if seed else "") for seed in sorted(final)}
    sources = {seed: _find(results / final[seed]["file"], name) for seed, name in names.items()}
    facts = {seed: read_metadata(path)["metadata"] for seed, path in sources.items()}
    if Recipe.from_dict(facts[0]["recipe"]) != cifarzoo.get_model_info(model).get_recipe(tag):
        raise InputError(f"make the recipe of the entry the recipe {tag!r} of {model!r} first")
    all_seeds = [seed for each in facts.values() for seed in each["seeds"]]
    entries = {}
    for seed, source in sources.items():
        name = names[seed]
        is_known = (FOLDER / f"{name}.safetensors").exists()  # what loads offline keeps doing so
        most = LARGE_SIZE if facts[seed]["data"] in OF_CIFAR10 else LARGE_SIZE_OF_OTHERS
        is_large = source.stat().st_size > most and not is_known
        pack = SEEDS if seed else LARGE if is_large else ""
        place = pack_folder(pack) / f"{name}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        source.replace(place)  # byte for byte: a repository keeps both or one
        entry, details = describe_file(place, tag, pack=pack)
        if seed:
            entries[f"seed{seed}" if tag == "default" else f"{tag}-seed{seed}"] = {
                **entry,
                "seed_of": tag,
            }
        else:
            entries[tag] = {**entry, "seeds": all_seeds}
            write_details(results, f"{model}-{tag}", details)
    index = json.loads((FOLDER / INDEX_NAME).read_text(encoding="utf-8"))
    index.setdefault(model, {}).update(entries)
    write_index(index)
    accuracy = final[0]["test_accuracy"]["none"]
    return f"{model} {tag}: {accuracy:.2%}, {len(facts)} seeds in the index"


def _find(finished: Path, name: str) -> Path:
    """Weights as they were finished, or where an earlier call has moved them to."""
    if finished.exists():
        return finished
    places = [pack_folder(pack) / f"{name}.safetensors" for pack in ("", LARGE, SEEDS)]
    return next((path for path in places if path.exists()), finished)


def describe_file(
    path: Path, recipe: str, *, pack: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the index says of a file of weights, and what the page of its model shows besides.

    Args:
        path: The file.
        recipe: What the recipe is called that it was trained by.
        pack: The package that brings it, if that is not this one.

    Returns:
        The entry of the index, its calibration error measured on the test images; and curves and
        confusion matrix, for `write_details`.
    """
    metadata = read_metadata(path)["metadata"]
    network = load_model(path)
    test = cifarzoo.load_dataset(metadata["data"], "test", download=False)
    found = cifarzoo.evaluate(network, test, precision="float32")
    entry = {
        "file": path.name,
        "sha256": file_digest(path),
        "size": path.stat().st_size,
        **({"pack": pack} if pack else {}),
        "license": "MIT",
        "citation": cifarzoo.get_model_info(cifarzoo.get_card(network).name).source,
        "recipe": recipe,
        "data": metadata["data"],
        "val_size": metadata["val_size"],
        "calibration_error": round(found.expected_calibration_error, 4),
        "seeds": metadata["seeds"],
    }
    records = metadata["history"]
    details = {
        "classes": [score.name for score in found.classes],
        "confusion": found.confusion,
        **{key: [_short(record[key]) for record in records] for key in CURVES},
    }
    return entry, details


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def write_details(results: Path, name: str, details: Mapping[str, Any]) -> None:
    """Write what the page of a model draws, a line for each fact."""
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in details.items())
    write_text(results / f"{name}.json", "{\n" + ",\n".join(lines) + "\n}\n")


def write_index(index: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the index of the package, and those of the packs, which hold what is theirs."""
    write_text(FOLDER / INDEX_NAME, json.dumps(index, indent=1, sort_keys=True) + "\n")
    packs: dict[str, dict[str, dict[str, Any]]] = {}
    for model, tags in index.items():
        for tag, entry in tags.items():
            if "pack" in entry:
                own = {key: value for key, value in entry.items() if key != "pack"}
                packs.setdefault(entry["pack"], {}).setdefault(model, {})[tag] = own
    for pack, content in packs.items():
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        write_text(pack_folder(pack) / INDEX_NAME, text)


def pack_folder(pack: str) -> Path:
    """Where the files of a pack lie in the checkout; of no pack, those of the package."""
    return PACKS / pack / "src" / pack.replace("-", "_") if pack else FOLDER


def accuracies(network: torch.nn.Module, images: ImageSet) -> dict[str, float]:
    """Accuracy with each kind of test-time augmentation.

    In float32 on every machine: rounding to bfloat16 moves as many images as that of the weights.
    """
    reports = evaluate_views(network, images, ("none", "flip", "flip_shift"), precision="float32")
    return {report.tta: report.accuracy for report in reports}
